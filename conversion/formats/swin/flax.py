"""The Flax tree of ``vit_jax``, in an orbax checkpoint: timm's names with ``/`` for ``.``, in JAX's axes."""

from conversion.containers import orbax_folder
from conversion.format import Format
from conversion.formats.swin.timm import PARTS
from conversion.second_reading.swin import SwinReading
from conversion.tensors.flax_tree import FlaxTree

FORMAT = Format(
    name="flax-swin",
    summary="the parameter tree of vit_jax's Swin Transformers as an orbax checkpoint folder",
    family="swin",
    group="flax",
    names=FlaxTree(),
    signature=("layers/0/blocks/0/attn/qkv/kernel",),
    before=("flax",),
    writer=orbax_folder.write,
    second_reading=SwinReading(names=PARTS, axes="jax", eps=None, inner_eps=None, activation=None, margin=None),
)
