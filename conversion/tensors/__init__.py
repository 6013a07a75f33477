"""Weights as plain tables, and operations on single arrays."""
