"""Swin Transformers as a family."""

from __future__ import annotations

from vit_spec.family import Family
from vit_spec.swin.config import SwinConfig
from vit_spec.swin.cost import forward_flops, longest_sum
from vit_spec.swin.models import MODELS, UNSUPPORTED
from vit_spec.swin.parameters import parameters, segments

SWIN = Family(
    name=SwinConfig.family,
    config=SwinConfig,
    parameters=parameters,
    segments=segments,
    forward_flops=forward_flops,
    longest_sum=longest_sum,
    models=MODELS,
    unsupported=UNSUPPORTED,
)
