"""Graphs of Swin Transformers."""

from conversion.graph.swin.reading import read

__all__ = ["read"]
