"""Options of a Vision Transformer that contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_spec.errors import VitportError

if TYPE_CHECKING:
    from vit_spec.vit.config import ViTConfig


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
    if c.relative_bias and (c.num_prefix_tokens != 1 or not c.class_token or c.block == "parallel"):
        raise VitportError(
            "relative_bias=True has biases for patches and a class token, in blocks with attention of their own: "
            "set class_token=True, distilled=False, register_tokens=0 and another block than 'parallel'."
        )
    if c.qv_bias and c.qkv_bias:
        raise VitportError("qv_bias=True takes the place of qkv_bias: set qkv_bias=False.")
    if c.norm == "rmsnorm" and c.norm_bias:
        raise VitportError("norm='rmsnorm' has no bias: set norm_bias=False.")
