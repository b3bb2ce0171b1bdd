"""What runs beside the requests: clean-up after retention, and callbacks."""
