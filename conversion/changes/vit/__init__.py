"""Changes of a plain ViT's weights; what those that all families share mean for it."""

from conversion.changes.vit.fitted import grid_resized, pooled
from conversion.changes.vit.trained import before_training

__all__ = ["before_training", "grid_resized", "pooled"]
