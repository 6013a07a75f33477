"""The names of timm's ``VisionTransformerRelPos``: the usual ones, and biases by relative position.

A network that all blocks share (``vit_srelpos``) is read as each block's own. Written as one safetensors file: shared
again where all blocks have the same one.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from conversion.containers import safetensors_file
from conversion.format import Format
from conversion.formats.vit.timm import ALIASES, PARTS, SET_ASIDE, is_relpos
from conversion.second_reading.vit import SecondReading
from conversion.tensors.rules import Renamed, Rule
from conversion.tensors.table import TensorTable
from vit_spec import ViTConfig

_SHARED, _OWN = "shared_rel_pos.", "blocks.{i}.attn.rel_pos."
_TABLE = Rule("blocks.{i}.attn.relative_position_bias_table", f"{_OWN}relative_position_bias_table")


class _Names(Renamed):
    """Reads shared biases as each block's own; shares those of all blocks that are the same."""

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        tensors = dict(table.tensors)
        shared = {name: tensors.pop(name) for name in table if name.startswith(_SHARED)}
        blocks = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
        for name, tensor in shared.items():
            tensors |= {_OWN.format(i=at) + name.removeprefix(_SHARED): tensor for at in blocks}
        return super().read(TensorTable(tensors))

    def write(self, table: TensorTable, config: Any) -> TensorTable:
        tensors = dict(Renamed((_TABLE,)).write(table, config).tensors)
        first, others = _OWN.format(i=0), [_OWN.format(i=at) for at in range(1, config.depth)]
        parts = [name.removeprefix(first) for name in tensors if name.startswith(first)]
        same = all(
            np.array_equal(tensors[first + part].read(), tensors[at + part].read()) for at in others for part in parts
        )
        if others and parts and same:  # blocks of several branches keep the biases of each
            tensors |= {_SHARED + part: tensors[first + part] for part in parts}
            tensors = {name: it for name, it in tensors.items() if ".attn.rel_pos." not in name}
        return TensorTable(tensors)


def cannot_hold(config: ViTConfig) -> list[str]:
    """Models without such biases are those of timm's other classes; this project's own may have any other option."""
    return [] if is_relpos(config) else ["relative_hidden_dim=None (the formats timm and timm-eva hold it)"]


FORMAT = Format(
    name="timm-relpos",
    summary="the names of timm's VisionTransformerRelPos",
    names=_Names((_TABLE, *ALIASES)),
    signature=(
        "blocks.0.attn.qkv.weight",
        (
            "blocks.0.attn.rel_pos.mlp.fc1.weight", "blocks.0.attn.rel_pos.relative_position_bias_table",
            "shared_rel_pos.mlp.fc1.weight", "shared_rel_pos.relative_position_bias_table",
        ),
    ),
    before=("timm", "timm-eva"),
    group="timm",
    set_aside=SET_ASIDE,
    conventions={"rotary": None},
    reader_defaults={"activation": "gelu"},
    writer=safetensors_file.write,
    cannot_hold=cannot_hold,
    second_reading=SecondReading(
        names=replace(
            PARTS,
            inside=dict(PARTS.inside) | {"offsets": ("attn.rel_pos.relative_position_bias_table",)},
            shared={
                "offsets": ("shared_rel_pos.relative_position_bias_table",),
                "offsets' first layer": ("shared_rel_pos.mlp.fc1",),
                "offsets' second layer": ("shared_rel_pos.mlp.fc2",),
            },
        ),
        plain=False,
    ),
)  # fmt: skip
