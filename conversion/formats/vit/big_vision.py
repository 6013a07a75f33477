"""google-research/big_vision: blocks one by one, positions at the top, a MAP head (Zhai et al. 2022, appendix)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from conversion.containers import npz_file
from conversion.format import Format
from conversion.formats.vit import google
from conversion.formats.vit.google_limits import cannot_hold
from conversion.formats.vit.google_linen import ANCHOR, BLOCKS
from conversion.tensors.rules import Rule, Rules
from vit_spec import VitportError

_TABLES = ("pos_embedding", "Transformer/pos_embedding")


def _attention_pool(at: str) -> tuple[Rule, ...]:
    attention = f"{at}MultiHeadDotProductAttention_0"
    return (
        Rule("attn_pool.latent", f"{at}probe"),
        *google.to_heads("attn_pool.q", attention, "query"),
        *google.to_heads("attn_pool.kv", attention, "key", "value"),
        *google.from_heads("attn_pool.proj", attention),
        *google.norm("attn_pool.norm", f"{at}LayerNorm_0"),
        *google.mlp("attn_pool.mlp", f"{at}MlpBlock_0"),
    )


RULES = (
    *google.AROUND,
    *(Rule("pos_embed", name) for name in _TABLES),  # the second in old files
    *BLOCKS,
    *_attention_pool("MAPHead_0/"),
    *_attention_pool(""),  # in old files
)
"""Of two names for one tensor both are read, and the first is written."""
CONVENTIONS = {**google.CONVENTIONS, "pos_embed": "patch"}


def facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The number of heads, and whether the class token has a position: in old files it has.

    Raises:
        VitportError: if there is no position table, which means that the positions are computed in code.
    """
    table = next((shapes[name] for name in _TABLES if name in shapes), None)
    if table is None:
        raise VitportError(
            "The file has no position table (pos_embedding): a model of big_vision's with sincos2d positions computes "
            "them in its code, and such a model cannot be held here yet."
        )
    rows = math.prod(table[1:-1])
    has_class_row = "cls" in shapes and math.isqrt(rows) ** 2 != rows and math.isqrt(rows - 1) ** 2 == rows - 1
    return google.heads_of(shapes) | {"pos_embed": "prefix" if has_class_row else "patch"}


FORMAT = Format(
    name="big-vision",
    summary="big_vision's npz",
    names=Rules(RULES),
    signature=(ANCHOR,),
    conventions=CONVENTIONS,
    shape_facts=facts,
    preprocessing=google.PREPROCESSING,
    forgets=google.FORGETS,
    writer=npz_file.write,
    cannot_hold=lambda config: cannot_hold(config, class_row=False, attention_pool=True),
)
