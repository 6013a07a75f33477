"""DINOv2 as trained with sharding: blocks in chunks, ``blocks.{chunk}.{i}``, where ``i`` counts through all chunks."""

from dataclasses import replace

from conversion.format import Format
from conversion.formats.vit.timm import ALIASES, PARTS, SET_ASIDE
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Aliased, Rule, module

_MODULES = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")

FORMAT = Format(
    name="dinov2-chunked",
    summary="DINOv2's names with blocks in chunks",
    names=Aliased((
        *ALIASES,
        *(rule for name in _MODULES for rule in module(f"blocks.{{i}}.{name}", f"blocks.{{chunk}}.{{i}}.{name}")),
        *module("blocks.{i}.mlp.fc1", "blocks.{chunk}.{i}.mlp.w12"),
        *module("blocks.{i}.mlp.fc2", "blocks.{chunk}.{i}.mlp.w3"),
        *(Rule(f"blocks.{{i}}.{name}", f"blocks.{{chunk}}.{{i}}.{name}") for name in ("ls1.gamma", "ls2.gamma")),
    )),
    signature=("blocks.0.0.attn.qkv.weight",),
    set_aside=SET_ASIDE,
    classifier_pool="token_avg",
    second_reading=SecondReading(names=replace(PARTS, block=("blocks.{chunk}.{i}",)), plain=False),
)  # fmt: skip
