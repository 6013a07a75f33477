"""A Swin Transformer in an ONNX graph. Its reader finds the parts by what they compute, under canonical names."""

from conversion.format import Format
from conversion.formats.swin.timm import PARTS
from conversion.second_reading.swin import SwinReading
from conversion.tensors.rules import Aliased

FORMAT = Format(
    name="onnx-swin",
    summary="a Swin Transformer by its graph",
    family="swin",
    names=Aliased(()),
    signature=("layers.0.blocks.0.attn.qkv.weight",),
    second_reading=SwinReading(names=PARTS, activation=None, eps=None, inner_eps=None),
)
"""Never written, and taken where a container says so: by its names a file is timm's."""
