"""A plain ViT run by other software: its names of layers and weights, in ours."""

from vit_parity.endpoints.vit.timm import fitted, timm_points
from vit_parity.endpoints.vit.transformers_model import capture_transformers

__all__ = ["capture_transformers", "fitted", "timm_points"]
