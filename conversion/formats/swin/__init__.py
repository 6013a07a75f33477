"""Formats of Swin Transformers."""
