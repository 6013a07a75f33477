"""big_vision with ``scan=True``: the blocks' tensors stacked along a leading axis of depth."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from conversion.containers import npz_file
from conversion.format import Format
from conversion.formats.vit import big_vision, google
from conversion.formats.vit.google_limits import cannot_hold
from conversion.formats.vit.google_linen import ANCHOR
from conversion.tensors import buffers
from conversion.tensors.rules import Names, Rules
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import ViTConfig, VitportError

_STACKED, _SINGLE = "Transformer/encoderblock/", re.compile(r"Transformer/encoderblock_(\d+)/(.*)")

_DEEPEST = 1000
"""More blocks than any model has: a stack of empty blocks is a tiny file that would become this many tensors."""


class Stacked:
    """A format's names with blocks ``Transformer/encoderblock_{i}/…`` stacked as ``Transformer/encoderblock/…``."""

    def __init__(self, single: Names) -> None:
        self.single = single

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        """Canonical table of a file's tensors, and the names that the format does not know.

        Where the file allows it, one block of a stack is read without the others.
        """
        tensors: dict[str, Tensor] = {}
        for name, tensor in table.tensors.items():
            if not name.startswith(_STACKED):
                tensors[name] = tensor
                continue
            if not tensor.shape or tensor.shape[0] > _DEEPEST:
                raise VitportError(
                    f"{name} has shape {tensor.shape}, but its first axis must be the depth, at most {_DEEPEST}."
                )
            entry = tensor.read_entry or _entry(tensor)
            for i in range(tensor.shape[0]):
                single = f"Transformer/encoderblock_{i}/{name.removeprefix(_STACKED)}"
                tensors[single] = Tensor(tensor.shape[1:], tensor.dtype, lambda entry=entry, i=i: entry(i))
        return self.single.read(TensorTable(tensors))

    def write(self, table: TensorTable, config: ViTConfig) -> TensorTable:
        """The format's table of canonical tensors; each stack is built when it is read."""
        tensors: dict[str, Tensor] = {}
        stacks: dict[str, dict[int, Tensor]] = defaultdict(dict)
        for name, tensor in self.single.write(table, config).tensors.items():
            if match := _SINGLE.fullmatch(name):
                stacks[_STACKED + match[2]][int(match[1])] = tensor
            else:
                tensors[name] = tensor
        return TensorTable(tensors | {name: _stack(name, blocks) for name, blocks in stacks.items()})

    def foreign_name(self, canonical: str, axes: int) -> str:
        """What the format calls a canonical name; one block of a stack is ``name[i]``."""
        parts = self.single.foreign_name(canonical, axes).split(" + ")
        return " + ".join(_SINGLE.sub(lambda match: f"{_STACKED}{match[2]}[{match[1]}]", part) for part in parts)


def _entry(tensor: Tensor) -> Callable[[int], np.ndarray]:
    return lambda i: tensor.read()[i]


def _stack(name: str, blocks: dict[int, Tensor]) -> Tensor:
    parts = [blocks[i] for i in sorted(blocks)]
    if len({(part.shape, part.dtype) for part in parts}) > 1:
        raise VitportError(
            f"{name} cannot be stacked because its shape or dtype differs between blocks: write big-vision instead."
        )

    def read() -> np.ndarray:
        stack = buffers.empty((len(parts), *parts[0].shape), parts[0].dtype)
        for i, part in enumerate(parts):
            stack[i] = part.read()
        return stack

    return Tensor((len(parts), *parts[0].shape), parts[0].dtype, read)


FORMAT = Format(
    name="big-vision-scan",
    summary="big_vision's npz with the blocks stacked",
    names=Stacked(Rules(big_vision.RULES)),
    signature=(ANCHOR.replace("encoderblock_0", "encoderblock"),),
    conventions=big_vision.CONVENTIONS,
    shape_facts=big_vision.facts,
    preprocessing=google.PREPROCESSING,
    drops=google.DROPS,
    writer=npz_file.write,
    cannot_hold=lambda config: cannot_hold(config, class_row=False, attention_pool=True),
    second_reading=big_vision.second_reading(replace(big_vision.PARTS, block=("Transformer/encoderblock",))),
)
