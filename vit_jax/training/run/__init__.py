"""The loop and everything it writes."""
