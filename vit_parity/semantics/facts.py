"""What no array of a plain ViT's file shows."""

from __future__ import annotations

from dataclasses import dataclass

from vit_spec.vit.rotary import Rotary


@dataclass(frozen=True)
class Facts:
    """Facts that no array shows."""

    heads: int
    eps: float
    activation: str
    pool: str
    """``token``, ``avg``, ``map`` or ``token_avg``."""
    scale: float | None = None
    """Factor on the attention logits; ``None`` means one over the root of the heads' width."""
    centred: bool = True
    """LayerNorm, not RMSNorm."""
    order: str = "sequential"
    """Where a block's norms are: ``vit_spec.BlockKind``."""
    pool_prefix: bool = False
    """Whether pooling averages all tokens, not only patches."""
    sincos: str | None = None
    """Which fixed sines and cosines of column and row patches without positions get."""
    pool_heads: int | None = None
    """Of pooling by attention, where they are not as many as in the blocks."""
    rotary: Rotary | None = None
    """How positions turn queries and keys."""
    distilled: bool = False
    """Whether a model without heads averages class and distillation token."""
