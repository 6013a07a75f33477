"""The names of BEiT, CaiT and DeiT III, which timm's ``Eva`` keeps: factors and some biases beside the layers.

EVA and EVA-02, DINOv3, PE, RoPE-ViT and models of timm's own. Written as one safetensors file.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from conversion.containers import safetensors_file
from conversion.format import Format
from conversion.formats.vit.shared_heads import remarks, with_all_heads, with_shared_heads
from conversion.formats.vit.timm import ALIASES, PARTS, SET_ASIDE, is_eva, is_relpos
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Renamed, Rule, joined, module
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import ViTConfig

_SHARED = "rel_pos_bias.relative_position_bias_table"
_KEY_BIAS = "blocks.{i}.attn.k_proj.bias"
_FREQUENCIES, _OWN = "rope.freqs", "blocks.{i}.attn.rotary.freqs"
_FACTORS = tuple(Rule(f"blocks.{{i}}.ls{at}.gamma", f"blocks.{{i}}.gamma_{at}") for at in (1, 2))
_WEIGHT, _BIAS = joined("blocks.{i}.attn.qkv", *(f"blocks.{{i}}.attn.{part}_proj" for part in "qkv"))
_SPLIT = (
    _WEIGHT,
    *(Rule(f"blocks.{{i}}.attn.{part}_bias", f"blocks.{{i}}.attn.{part}_proj.bias") for part in "qv"),
)
_BAAI = (
    *module("blocks.{i}.mlp.fc1_g", "blocks.{i}.mlp.w1"),
    *module("blocks.{i}.mlp.fc1_x", "blocks.{i}.mlp.w2"),
    *module("blocks.{i}.mlp.norm", "blocks.{i}.mlp.ffn_ln"),
    *module("blocks.{i}.attn.norm", "blocks.{i}.attn.inner_attn_ln"),
)
"""BAAI's names where they differ."""


_SAPIENS = (_WEIGHT, _BIAS, *_FACTORS)
"""Of what is not canonical, all that Sapiens2 has."""


class _Names(Renamed):
    """Reads fused and split attention, and learned frequencies of all blocks in one array; writes what timm's model of
    that config has: inner norms go with split attention, and so do factors of attention alone."""

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        tensors = dict(table.tensors)
        if (joint := tensors.pop(_FREQUENCIES, None)) is not None:
            tensors |= {_OWN.format(i=at): _of_block(joint, at) for at in range(joint.shape[1])}
        if (shared := tensors.pop(_SHARED, None)) is not None:
            blocks = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
            tensors |= {f"blocks.{at}.attn.relative_position_bias_table": shared for at in blocks}
        if _KEY_BIAS.format(i=0) in tensors:
            return Renamed(_SAPIENS).read(TensorTable(with_all_heads(tensors)))
        return super().read(TensorTable(tensors))

    def write(self, table: TensorTable, config: Any) -> TensorTable:
        if config.scale_attention_only:
            return TensorTable(with_shared_heads(Renamed(_SAPIENS).write(table, config).tensors, config.head_dim))
        names = Renamed((*_FACTORS, *(_SPLIT if _has_inner_norm(table) and not config.qkv_bias else ())))
        tensors = dict(names.write(table, config).tensors)
        own = [tensors.pop(name) for at in range(config.depth) if (name := _OWN.format(i=at)) in tensors]
        return TensorTable(tensors | ({_FREQUENCIES: _stacked(own)} if own else {}))


def _of_block(joint: Tensor, at: int) -> Tensor:
    """One block's frequencies (2, h, d / 2), out of those of all, (2, depth, h, d / 2)."""
    return Tensor((joint.shape[0], *joint.shape[2:]), joint.dtype, lambda: joint.read()[:, at])


def _stacked(parts: list[Tensor]) -> Tensor:
    axes, *others = parts[0].shape
    shape = (axes, len(parts), *others)
    return Tensor(shape, parts[0].dtype, lambda: np.stack([part.read() for part in parts], axis=1))


def cannot_hold(config: ViTConfig) -> list[str]:
    """Models without either are those of timm's other classes; this project's own may have any other option."""
    if is_relpos(config):
        return ["biases by relative position of this kind (the format timm-relpos does)"]
    return [] if is_eva(config) else ["rotary=None with qv_bias=False (the format timm holds it)"]


def _has_inner_norm(names: Iterable[str]) -> bool:
    return any(".mlp.norm." in name for name in names)


FORMAT = Format(
    name="timm-eva",
    summary="the names of BEiT, DeiT III and timm's Eva",
    names=_Names((*_FACTORS, *_SPLIT, *_BAAI, *(rule for rule in ALIASES if rule not in _FACTORS))),
    signature=(
        ("blocks.0.attn.qkv.weight", "blocks.0.attn.q_proj.weight"),
        (
            "blocks.0.gamma_1", "blocks.0.attn.q_bias", "blocks.0.attn.q_proj.weight", "rope.freqs",
            "blocks.0.attn.relative_position_bias_table",
        ),
    ),
    before=("timm",),
    group="timm",
    set_aside=SET_ASIDE | {
        "*relative_position_index": "rows of relative positions, which follow from the grid",
        "*rope.freqs_*": "cosines and sines of rotary positions, which follow from the config",
        "lm_head.*": "the head that guesses hidden patches in pre-training",
    },
    remarks=remarks,
    reader_defaults={"activation": "gelu"},
    writer=safetensors_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(
            PARTS,
            query=("attn.q_proj",), key=("attn.k_proj",), value=("attn.v_proj",), gate=("mlp.fc1_g", "mlp.w1"),
            gated=("mlp.fc1_x", "mlp.w2"),
            inside=dict(PARTS.inside) | {
                "heads": ("attn.norm", "attn.inner_attn_ln"), "hidden": ("mlp.norm", "mlp.ffn_ln"),
            },
            frequencies=("rope.freqs",), shared={"offsets": ("rel_pos_bias.relative_position_bias_table",)},
        ),
        plain=False,
    ),
)  # fmt: skip
