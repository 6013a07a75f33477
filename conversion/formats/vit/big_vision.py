"""google-research/big_vision: one set of arrays for each block, positions at the top, a MAP head (Zhai et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conversion.containers import npz_file
from conversion.format import Format
from conversion.formats.vit import google, google_linen
from conversion.formats.vit.google_limits import cannot_hold
from conversion.second_reading.vit import PartNames, SecondReading
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
    *google_linen.BLOCKS,
    *_attention_pool("MAPHead_0/"),
    *_attention_pool(""),  # in old files
)
"""Where a tensor has two names, both are read and the first is written."""
CONVENTIONS = {**google.CONVENTIONS, "pos_embed": "patch"}
PARTS = replace(
    google_linen.PARTS,
    positions=("pos_embedding", "Transformer/pos_embedding"),
    pool_latent=("MAPHead_0/probe", "probe"),
    pool_query=("MAPHead_0/MultiHeadDotProductAttention_0/query", "MultiHeadDotProductAttention_0/query"),
    pool_key=("MAPHead_0/MultiHeadDotProductAttention_0/key", "MultiHeadDotProductAttention_0/key"),
    pool_value=("MAPHead_0/MultiHeadDotProductAttention_0/value", "MultiHeadDotProductAttention_0/value"),
    pool_out=("MAPHead_0/MultiHeadDotProductAttention_0/out", "MultiHeadDotProductAttention_0/out"),
    pool_norm=("MAPHead_0/LayerNorm_0", "LayerNorm_0"),
    pool_first=("MAPHead_0/MlpBlock_0/Dense_0", "MlpBlock_0/Dense_0"),
    pool_second=("MAPHead_0/MlpBlock_0/Dense_1", "MlpBlock_0/Dense_1"),
)


def second_reading(names: PartNames) -> SecondReading:
    """As Google's, with the MAP head."""
    pools = {"MAPHead_0/probe": "map", "probe": "map"}
    reading = google.second_reading(names)
    return replace(reading, pool_where=pools | dict(reading.pool_where))


def facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The number of heads, and whether the class token has a position, as it does in old files.

    Raises:
        VitportError: if there is no position table, because the positions are computed in code.
    """
    table = next((shapes[name] for name in _TABLES if name in shapes), None)
    if table is None:
        raise VitportError(
            "The file has no position table (pos_embedding). big_vision's models with sincos2d positions compute them "
            "in code, which is not supported: add the table to the file as pos_embedding."
        )
    rows = math.prod(table[1:-1])
    has_class_row = "cls" in shapes and math.isqrt(rows) ** 2 != rows and math.isqrt(rows - 1) ** 2 == rows - 1
    return google.heads_of(shapes) | {"pos_embed": "prefix" if has_class_row else "patch"}


FORMAT = Format(
    name="big-vision",
    summary="big_vision's npz",
    names=Rules(RULES),
    signature=(google_linen.ANCHOR,),
    conventions=CONVENTIONS,
    shape_facts=facts,
    preprocessing=google.PREPROCESSING,
    drops=google.DROPS,
    writer=npz_file.write,
    cannot_hold=lambda config: cannot_hold(config, class_row=False, attention_pool=True),
    second_reading=second_reading(PARTS),
)
