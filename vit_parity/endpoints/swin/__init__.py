"""A Swin Transformer run by other software: its names of layers and weights, in ours."""

from vit_parity.endpoints.swin.timm import fitted, timm_points
from vit_parity.endpoints.swin.transformers_model import capture_transformers

__all__ = ["capture_transformers", "fitted", "timm_points"]
