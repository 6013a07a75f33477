"""Google's released ViT weights (google-research/vision_transformer, AugReg and SAM), and what related formats share.

The released ``.npz`` files number a block's modules in one sequence, whatever their kind: ``LayerNorm_0``,
``MultiHeadDotProductAttention_1``, ``LayerNorm_2``, ``MlpBlock_3``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion.containers import npz_file
from conversion.format import Format
from conversion.formats.vit.google_limits import cannot_hold
from conversion.second_reading.vit import PartNames, SecondReading
from conversion.tensors.contiguous import concatenate
from conversion.tensors.rules import LAYOUT, Rule, Rules
from vit_spec import Kind, Preprocessing, ViTConfig, VitportError
from vit_spec.preprocessing import HALF


@dataclass(frozen=True)
class Heads:
    """Kernels (D, h, d) and biases (h, d) of linear layers that feed heads; canonically one matrix, (parts·h·d, D)."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if arrays[0].ndim not in (2, 3):
            raise ValueError("expected axes (width, heads, head width), or (heads, head width) for a bias")
        if len({array.shape for array in arrays}) > 1:
            raise ValueError("their shapes differ")
        *inputs, heads, width = arrays[0].shape
        rows = [array.reshape(*inputs, heads * width).T for array in arrays]  # (h·d, D) or (h·d,)
        return [concatenate(rows)]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: ViTConfig) -> list[np.ndarray]:
        (rows,) = arrays
        parts = np.split(rows, rows.shape[0] // config.embed_dim)  # each (D, D) or (D,)
        return [part.T.reshape(*part.shape[1:], config.num_heads, config.head_dim) for part in parts]


@dataclass(frozen=True)
class FromHeads:
    """Kernel (h, d, D) of the linear layer after the heads; canonically (D, h·d)."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (kernel,) = arrays
        if kernel.ndim != 3:
            raise ValueError("expected axes (heads, head width, width)")
        return [kernel.reshape(-1, kernel.shape[-1]).T]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: ViTConfig) -> list[np.ndarray]:
        (weight,) = arrays
        return [weight.T.reshape(config.num_heads, config.head_dim, -1)]


def norm(canonical: str, foreign: str) -> tuple[Rule, ...]:
    """Rules for a LayerNorm."""
    return Rule(f"{canonical}.weight", f"{foreign}/scale"), Rule(f"{canonical}.bias", f"{foreign}/bias")


def dense(canonical: str, foreign: str) -> tuple[Rule, ...]:
    """Rules for a linear layer."""
    kernel = Rule(f"{canonical}.weight", f"{foreign}/kernel", LAYOUT[Kind.LINEAR])
    return kernel, Rule(f"{canonical}.bias", f"{foreign}/bias")


def to_heads(canonical: str, foreign: str, *parts: str) -> tuple[Rule, ...]:
    """Rules for linear layers that feed heads, such as query, key and value in ``qkv``."""
    return tuple(
        Rule(f"{canonical}.{ours}", tuple(f"{foreign}/{part}/{theirs}" for part in parts), Heads())
        for ours, theirs in (("weight", "kernel"), ("bias", "bias"))
    )


def from_heads(canonical: str, foreign: str) -> tuple[Rule, ...]:
    """Rules for the linear layer after the heads."""
    kernel = Rule(f"{canonical}.weight", f"{foreign}/out/kernel", FromHeads())
    return kernel, Rule(f"{canonical}.bias", f"{foreign}/out/bias")


def mlp(canonical: str, foreign: str) -> tuple[Rule, ...]:
    """Rules for a plain MLP."""
    return *dense(f"{canonical}.fc1", f"{foreign}/Dense_0"), *dense(f"{canonical}.fc2", f"{foreign}/Dense_1")


def blocks(norm1: str, attention: str, norm2: str, mlp_block: str) -> tuple[Rule, ...]:
    """Rules for the blocks, given the names of a block's four modules."""
    ours, theirs = "blocks.{i}", "Transformer/encoderblock_{i}"
    return (
        *norm(f"{ours}.norm1", f"{theirs}/{norm1}"),
        *to_heads(f"{ours}.attn.qkv", f"{theirs}/{attention}", "query", "key", "value"),
        *from_heads(f"{ours}.attn.proj", f"{theirs}/{attention}"),
        *norm(f"{ours}.norm2", f"{theirs}/{norm2}"),
        *mlp(f"{ours}.mlp", f"{theirs}/{mlp_block}"),
    )


AROUND = (
    Rule("cls_token", "cls"),
    Rule("patch_embed.proj.weight", "embedding/kernel", LAYOUT[Kind.CONV]),
    Rule("patch_embed.proj.bias", "embedding/bias"),
    *norm("norm", "Transformer/encoder_norm"),
    *dense("pre_logits.fc", "pre_logits"),
    *dense("head", "head"),
)
POSITIONS = Rule("pos_embed", "Transformer/posembed_input/pos_embedding")
CONVENTIONS = {
    "activation": "gelu_tanh", "norm_eps": 1e-6, "pos_embed_resize": "scipy-zoom", "final_norm": "tokens",
    "pool": "token", "pos_embed": "prefix",
}  # fmt: skip
"""Flax's GELU is the tanh form, and its LayerNorm adds 1e-6."""
DROPS = (
    "labels", "preprocessing", "image_size", "pos_embed_resize", "drop_rate", "attn_drop_rate", "drop_path_rate",
)  # fmt: skip
"""The files hold nothing but tensors, whose shapes do not show whether images are square."""
PREPROCESSING = Preprocessing(mean=HALF, std=HALF, interpolation="bilinear", resize="squash")
PARTS = PartNames(
    patches=("embedding",), tokens=(("cls",),), positions=("Transformer/posembed_input/pos_embedding",),
    block=("Transformer/encoderblock_{i}",),
    norm1=("LayerNorm_0",), query=("MultiHeadDotProductAttention_1/query",),
    key=("MultiHeadDotProductAttention_1/key",), value=("MultiHeadDotProductAttention_1/value",),
    out=("MultiHeadDotProductAttention_1/out",), norm2=("LayerNorm_2",), first=("MlpBlock_3/Dense_0",),
    second=("MlpBlock_3/Dense_1",),
    norm=("Transformer/encoder_norm",), pre_logits=("pre_logits",), head=("head",),
)  # fmt: skip


def second_reading(names: PartNames) -> SecondReading:
    """Google's code fixes the epsilon and the tanh GELU, and averages the tokens where there is no class token."""
    return SecondReading(
        names=names, axes="jax", norm_eps=1e-6, activation="gelu_tanh", pool="avg", pool_where={"cls": "token"}
    )


_HEAD_AXIS = {
    **{f"/{part}/kernel": -2 for part in ("query", "key", "value")},
    **{f"/{part}/bias": -2 for part in ("query", "key", "value")},
    "/out/kernel": -3,
}
"""Ending of a name in an attention module → which axis of its shape counts heads, from the last one."""


def heads_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The number of heads, which all attention kernels show.

    Raises:
        VitportError: if two kernels show different numbers.
    """
    found: dict[int, str] = {}
    for name, shape in shapes.items():
        axis = next((axis for ending, axis in _HEAD_AXIS.items() if name.endswith(ending)), None)
        if axis is None or "MultiHeadDotProductAttention_" not in name or len(shape) < -axis:
            continue
        found.setdefault(shape[axis], name)
    if len(found) > 1:
        differing = ", ".join(f"{heads} in {name}" for heads, name in found.items())
        raise VitportError(
            f"The number of heads differs ({differing}), but all blocks of a model must have the same: fix the file."
        )
    return {"num_heads": next(iter(found))}


FORMAT = Format(
    name="google",
    summary="Google's npz as released for ViT and AugReg",
    names=Rules(
        (*AROUND, POSITIONS, *blocks("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"))
    ),
    signature=("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel",),
    conventions=CONVENTIONS,
    shape_facts=heads_of,
    preprocessing=PREPROCESSING,
    drops=DROPS,
    writer=npz_file.write,
    cannot_hold=lambda config: cannot_hold(config, class_row=True),
    second_reading=second_reading(PARTS),
)
