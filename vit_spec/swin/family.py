"""Swin Transformers as a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vit_spec.family import Family
from vit_spec.model import Model
from vit_spec.swin.config import SwinConfig
from vit_spec.swin.cost import block_sizes, forward_flops, longest_sum
from vit_spec.swin.margin import margin_in_words
from vit_spec.swin.options import TIMM_NAMES
from vit_spec.swin.parameters import parameters, segments


def _models() -> Sequence[Model]:
    from vit_spec.swin.models import MODELS

    return MODELS


def _unsupported() -> Mapping[str, str]:
    from vit_spec.swin.models import UNSUPPORTED

    return UNSUPPORTED


SWIN = Family(
    name=SwinConfig.family,
    config=SwinConfig,
    parameters=parameters,
    segments=segments,
    block_sizes=block_sizes,
    forward_flops=forward_flops,
    longest_sum=longest_sum,
    size_fields=("version", "depths", "embed_dim", "patch_size"),
    aliases=TIMM_NAMES,
    models=_models,
    unsupported=_unsupported,
    remarks=margin_in_words,
)
