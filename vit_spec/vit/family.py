"""The plain Vision Transformer as a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vit_spec.family import Family
from vit_spec.model import Model
from vit_spec.vit.config import FIELDS, ViTConfig
from vit_spec.vit.cost import block_sizes, forward_flops, longest_sum
from vit_spec.vit.options import TIMM_NAMES
from vit_spec.vit.parameters import parameters, segments
from vit_spec.vit.remarks import remarks

_MAY_DIFFER = frozenset({
    "image_size", "in_channels", "num_classes", "num_heads", "mlp_ratio", "mlp_hidden_dim", "activation", "qk_scale",
    "norm", "norm_eps", "final_norm", "layer_scale", "pos_embed", "pos_embed_resize", "pool", "pool_prefix",
    "map_heads", "map_hidden_dim", "representation_size", "drop_rate", "attn_drop_rate", "drop_path_rate",
})  # fmt: skip
"""Fields that fine-tuning changes, that tensors do not show, or of which one shape has several values."""


def _models() -> Sequence[Model]:
    from vit_spec.vit.models import MODELS

    return MODELS


def _unsupported() -> Mapping[str, str]:
    from vit_spec.vit.models import UNSUPPORTED

    return UNSUPPORTED


VIT = Family(
    name=ViTConfig.family,
    config=ViTConfig,
    parameters=parameters,
    segments=segments,
    block_sizes=block_sizes,
    forward_flops=forward_flops,
    longest_sum=longest_sum,
    size_fields=tuple(dict.fromkeys(("depth", *(name for name in FIELDS if name not in _MAY_DIFFER), "hidden_dim"))),
    aliases=TIMM_NAMES,
    remarks=remarks,
    models=_models,
    unsupported=_unsupported,
)
