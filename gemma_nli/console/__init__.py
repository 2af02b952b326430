"""What people see in a terminal of 80 columns."""
