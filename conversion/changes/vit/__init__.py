"""Changes of a plain ViT's weights; what those that all families share mean for it."""

from conversion.changes.vit.fitted import grid_resized, pooled

__all__ = ["grid_resized", "pooled"]
