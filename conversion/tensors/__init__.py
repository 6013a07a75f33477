"""Weights as plain tables, and what is done to single arrays."""
