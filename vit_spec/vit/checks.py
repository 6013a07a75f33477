"""Options of a Vision Transformer that contradict each other."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from vit_spec.errors import VitportError

if TYPE_CHECKING:
    from vit_spec.vit.config import ViTConfig


def check_divisions(c: ViTConfig) -> None:
    """Refuse images without a patch, and widths that do not divide among heads.

    Raises:
        VitportError: for the first of them.
    """
    for side, length in zip(("height", "width"), c.image_size, strict=True):
        if length < c.patch_size:
            raise VitportError(
                f"image_size={c.image_size[0]}x{c.image_size[1]} holds no patch: its {side} {length} is below "
                f"patch_size={c.patch_size}."
            )
    if c.embed_dim % c.num_heads:
        raise VitportError(
            f"embed_dim={c.embed_dim} does not divide among num_heads={c.num_heads}: choose a width that is a multiple "
            "of the number of heads."
        )
    if c.embed_dim % c.pool_heads:
        raise VitportError(f"embed_dim={c.embed_dim} does not divide among map_heads={c.map_heads}.")


def check_options(c: ViTConfig) -> None:
    """Refuse options that contradict each other.

    Raises:
        VitportError: for the first of them.
    """
    if c.pool in ("token", "token_avg") and not c.class_token:
        raise VitportError(f"pool={c.pool!r} reads the class token, but class_token=False: choose pool='avg' or 'map'.")
    if c.pool != "map" and (c.map_heads or c.map_hidden_dim):
        raise VitportError(f"map_heads and map_hidden_dim are for pool='map', but pool={c.pool!r}.")
    if c.distilled and c.pool != "token":
        raise VitportError(f"distilled=True reads its two tokens, but pool={c.pool!r}: choose pool='token'.")
    if c.pool == "token_avg" and c.final_norm == "pooled":
        raise VitportError(
            "pool='token_avg' joins two vectors, which final_norm='pooled' cannot norm: choose 'tokens'."
        )
    if c.block == "parallel" and (c.rotary is not None or c.qv_bias):
        raise VitportError("block='parallel' is known without rotary and qv_bias alone: leave them out.")
    if c.block == "parallel" and c.mlp_bias is not None:
        raise VitportError(
            f"block='parallel' joins attention and MLP, so mlp_bias={c.mlp_bias} cannot differ from "
            f"proj_bias={c.proj_bias}: leave it out."
        )
    if c.relative_bias and (c.num_prefix_tokens != int(c.class_token) or c.block == "parallel"):
        raise VitportError(
            "relative_bias=True has biases for patches and a class token, in blocks with attention of their own: "
            "set distilled=False, register_tokens=0 and another block than 'parallel'."
        )
    if c.relative_hidden_dim is not None and (c.relative_bias or c.block == "parallel"):
        raise VitportError(
            f"relative_hidden_dim={c.relative_hidden_dim} computes biases in place of a table, in blocks with "
            "attention of their own: set relative_bias=False and another block than 'parallel'."
        )
    if c.block != "branched" and c.branches != 2:
        raise VitportError(f"branches={c.branches} is for block='branched', but block={c.block!r}.")
    if c.differential and (
        c.head_dim % 2 or c.rotary is not None or c.relative_bias or c.relative_hidden_dim is not None
    ):
        raise VitportError(
            f"differential=True halves heads, whose width is {c.head_dim}, and is known without rotary positions and "
            "biases by relative position: choose an even width, and leave those out."
        )
    if c.scale_attention_only and (c.layer_scale is None or c.block in ("parallel", "branched")):
        raise VitportError(
            f"scale_attention_only=True is for a layer_scale in blocks of one attention, then one MLP, but "
            f"layer_scale={c.layer_scale}, block={c.block!r}: set it to False, or choose another block."
        )
    if c.qv_bias and c.qkv_bias:
        raise VitportError("qv_bias=True takes the place of qkv_bias: set qkv_bias=False.")
    if c.norm == "rmsnorm" and c.norm_bias:
        raise VitportError("norm='rmsnorm' has no bias: set norm_bias=False.")


def warn_of_unused(c: ViTConfig) -> None:
    """Warn the caller of a config's constructor of what it ignores."""
    if c.distilled and c.representation_size is not None:
        warnings.warn(
            f"representation_size={c.representation_size} is ignored because distilled=True: a distilled model has two "
            "heads and no pre_logits layer.",
            stacklevel=4,
        )
