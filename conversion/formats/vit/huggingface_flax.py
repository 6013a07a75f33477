"""Hugging Face ``FlaxViTModel`` and ``FlaxViTForImageClassification`` (transformers up to 4): ``flax_model.msgpack``.

Its names are those of the PyTorch files with ``/`` for ``.``; its axes are JAX's, and heads have no axis of their own.
"""

from __future__ import annotations

from conversion.config_json.huggingface import model_facts
from conversion.format import Format
from conversion.formats.vit.huggingface_vit import CONFIG_JSON, CONVENTIONS, EMBEDDINGS, HEADS, ON_DISK, PARTS
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import COPY, LAYOUT, Rule, Rules
from conversion.tensors.table import TensorTable
from vit_spec import Kind, ViTConfig

_PYTORCH = (*EMBEDDINGS, *ON_DISK, *HEADS)


def _leaf(name: str) -> Rule:
    """The rule between a name of the PyTorch file and its path."""
    leaf, transform = "kernel", LAYOUT[Kind.CONV if name.endswith("projection.weight") else Kind.LINEAR]
    if not name.endswith(".weight"):
        return Rule(name, name.replace(".", "/"))
    if "layernorm" in name:
        leaf, transform = "scale", COPY
    return Rule(name, name.removesuffix("weight").replace(".", "/") + leaf, transform)


class FlaxOfPyTorch:
    """Two tables of rules, applied in turn: paths to the PyTorch file's names, and those to canonical names."""

    leaves = Rules(_leaf(name) for rule in _PYTORCH for name in rule.foreign_names)
    pytorch = Rules(_PYTORCH)

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        pytorch, unknown = self.leaves.read(table)
        canonical, _ = self.pytorch.read(pytorch)
        return canonical, unknown

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        return self.leaves.write(self.pytorch.write(table, config), config)

    def foreign_name(self, canonical: str, axes: int) -> str:
        names = self.pytorch.foreign_name(canonical, axes).split(" + ")
        return " + ".join(self.leaves.foreign_name(name, axes) for name in names)


FORMAT = Format(
    name="huggingface-flax",
    summary="Hugging Face ViT folder with flax_model.msgpack",
    names=FlaxOfPyTorch(),
    signature=("embeddings/patch_embeddings/projection/kernel", "layernorm/scale"),
    base="vit/",
    conventions=CONVENTIONS,
    facts=model_facts,
    second_reading=SecondReading(names=PARTS, axes="jax", pool="token", config_json=CONFIG_JSON),
)
