"""Chaos: drivers, workers and servers killed, files damaged; then every trial is counted."""
