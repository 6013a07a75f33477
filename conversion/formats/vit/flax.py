"""The Flax tree of ``vit_jax``, in an orbax checkpoint: timm's names with ``/`` for ``.``, in JAX's axes."""

from conversion.containers import orbax_folder
from conversion.format import Format
from conversion.formats.vit.timm import PARTS
from conversion.second_reading.vit import SecondReading
from conversion.tensors.flax_tree import FlaxTree

FORMAT = Format(
    name="flax",
    summary="the parameter tree of vit_jax as an orbax checkpoint folder",
    names=FlaxTree(),
    signature=(("blocks/0/attn/qkv/kernel", "blocks/0/in_proj/kernel", "blocks/0/attns/0/attn/qkv/kernel"),),
    writer=orbax_folder.write,
    second_reading=SecondReading(names=PARTS, axes="jax", plain=False),
)
