"""Graphs of Vision Transformers."""

from conversion.graph.vit.reading import read

__all__ = ["read"]
