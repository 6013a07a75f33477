"""Which model and which format a file holds."""
