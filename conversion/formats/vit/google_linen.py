"""The parameter tree of google-research/vision_transformer's current code, in Flax's msgpack.

A block's modules are numbered for each kind apart: ``LayerNorm_0``, ``LayerNorm_1``, ``MlpBlock_0``.
"""

from dataclasses import replace

from conversion.containers import msgpack_file
from conversion.format import Format
from conversion.formats.vit import google
from conversion.formats.vit.google_limits import cannot_hold
from conversion.tensors.rules import Rules

BLOCKS = google.blocks("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
ANCHOR = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"
PARTS = replace(
    google.PARTS,
    query=("MultiHeadDotProductAttention_0/query",), key=("MultiHeadDotProductAttention_0/key",),
    value=("MultiHeadDotProductAttention_0/value",), out=("MultiHeadDotProductAttention_0/out",),
    norm2=("LayerNorm_1",), first=("MlpBlock_0/Dense_0",), second=("MlpBlock_0/Dense_1",),
)  # fmt: skip

FORMAT = Format(
    name="google-linen",
    summary="the Flax Linen tree of Google's vision_transformer in one msgpack file",
    names=Rules((*google.AROUND, google.POSITIONS, *BLOCKS)),
    signature=(ANCHOR, "Transformer/posembed_input/pos_embedding"),
    before=("big-vision",),
    conventions=google.CONVENTIONS,
    shape_facts=google.heads_of,
    preprocessing=google.PREPROCESSING,
    drops=google.DROPS,
    writer=msgpack_file.write,
    cannot_hold=lambda config: cannot_hold(config, class_row=True),
    second_reading=google.second_reading(PARTS),
)
