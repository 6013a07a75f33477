"""Weights under a stranger's own names, read by a file of rules that the user writes."""
