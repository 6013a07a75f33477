"""Graphs of Vision Transformers."""

from conversion.graph.vit.reading import Reading, read

__all__ = ["Reading", "read"]
