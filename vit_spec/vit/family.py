"""The plain Vision Transformer as a family."""

from __future__ import annotations

from vit_spec.family import Family
from vit_spec.vit.config import ViTConfig
from vit_spec.vit.cost import forward_flops, longest_sum
from vit_spec.vit.models import MODELS, UNSUPPORTED
from vit_spec.vit.parameters import parameters, segments

VIT = Family(
    name=ViTConfig.family,
    config=ViTConfig,
    parameters=parameters,
    segments=segments,
    forward_flops=forward_flops,
    longest_sum=longest_sum,
    models=MODELS,
    unsupported=UNSUPPORTED,
)
