"""The parameter tree of google-research/vision_transformer as its code has it today, in Flax's msgpack.

Here a block's modules are counted kind by kind: ``LayerNorm_0``, ``LayerNorm_1``, ``MlpBlock_0``.
"""

from conversion.containers import msgpack_file
from conversion.format import Format
from conversion.formats.vit import google
from conversion.formats.vit.google_limits import cannot_hold
from conversion.tensors.rules import Rules

BLOCKS = google.blocks("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
ANCHOR = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"

FORMAT = Format(
    name="google-linen",
    summary="the Flax Linen tree of Google's vision_transformer in one msgpack file",
    names=Rules((*google.AROUND, google.POSITIONS, *BLOCKS)),
    signature=(ANCHOR, "Transformer/posembed_input/pos_embedding"),
    conventions=google.CONVENTIONS,
    shape_facts=google.heads_of,
    preprocessing=google.PREPROCESSING,
    forgets=google.FORGETS,
    writer=msgpack_file.write,
    cannot_hold=lambda config: cannot_hold(config, class_row=True),
)
