"""What a sweep's out-of-fold predictions say: tests, honest scores, effects, errors, and the report."""
