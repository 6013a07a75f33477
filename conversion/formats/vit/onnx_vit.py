"""A Vision Transformer in an ONNX graph. Its reader finds the parts by what they compute, under canonical names."""

from conversion.format import Format
from conversion.formats.vit.timm import PARTS
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Aliased

FORMAT = Format(
    name="onnx-vit",
    summary="a Vision Transformer by its graph",
    names=Aliased(()),
    signature=(("blocks.0.attn.qkv.weight", "blocks.0.in_proj.weight"),),
    second_reading=SecondReading(names=PARTS, plain=False),
)
"""Never written, and taken where a container says so: by its names a file is timm's."""
