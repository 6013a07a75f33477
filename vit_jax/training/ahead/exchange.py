"""The collectives of a compiled program: what each moves, between which devices, how often, and beside what."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from vit_jax.training.ahead.program import Computation, Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
         "collective-broadcast")  # fmt: skip
_GROUPS = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_PAIRS = re.compile(r"source_target_pairs=\{\{(\d+),(\d+)\}")


@dataclass(frozen=True)
class Exchange:
    """One collective instruction, on one device."""

    kind: str
    bytes: float
    """Of its result; of a reduce-scatter, of its input."""
    members: tuple[int, ...]
    """The devices of the first group, by their number in the program."""
    times: int
    asynchronous: bool
    """Whether the program goes on while it runs."""

    @property
    def total(self) -> float:
        """Bytes per step."""
        return self.bytes * self.times


def exchanges(program: Program, devices: int) -> list[Exchange]:
    """All collectives of more than one device, those in loops as often as they run.

    A reduction of which every device then takes its part, in one fusion, is a reduce-scatter: so XLA writes it for
    TPUs.

    Args:
        devices: of the program.
    """
    return [
        found
        for here, one, times in program.executed()
        for found in _of(program, here, one, times, devices, asynchronous=False)
        if len(found.members) > 1
    ]


def _of(
    program: Program, here: Computation, one: Instruction, times: int, devices: int, *, asynchronous: bool
) -> Iterator[Exchange]:
    kind = one.opcode.removesuffix("-start")
    if kind in KINDS:
        later = asynchronous or one.opcode.endswith("-start")
        yield Exchange(kind, _bytes(here, one, kind), _members(one, devices), times, later)
    elif one.opcode in ("fusion", "async-start"):
        for _, name in one.called:
            inner = program.computations[name]
            for each in inner.instructions:
                found = list(
                    _of(program, inner, each, times, devices,
                        asynchronous=asynchronous or one.opcode == "async-start" or _is_async(one))
                )  # fmt: skip
                if each.opcode == "all-reduce" and _is_scattered(inner, each):
                    yield from (
                        Exchange("reduce-scatter", it.bytes, it.members, times, it.asynchronous) for it in found
                    )
                else:
                    yield from found


def _is_async(fusion: Instruction) -> bool:
    return "async_collective" in fusion.name or "async-collective" in fusion.name


def _is_scattered(inner: Computation, reduction: Instruction) -> bool:
    return any(user.opcode == "dynamic-slice" for user in inner.users.get(reduction.name, []))


def _bytes(here: Computation, one: Instruction, kind: str) -> float:
    if kind == "reduce-scatter":
        return sum(array.bytes for name in one.operands if name in here.by_name for array in here.by_name[name].arrays)
    arrays = [array for array in one.arrays if array.shape or kind == "all-reduce"]
    if one.opcode in ("all-gather-start", "collective-permute-start"):  # operands stand before the results
        arrays = arrays[len(one.operands) : 2 * len(one.operands)]
    return sum(array.bytes for array in arrays)


def _members(one: Instruction, devices: int) -> tuple[int, ...]:
    if pair := _PAIRS.search(one.rest):
        return tuple(map(int, pair.groups()))
    if groups := _GROUPS.search(one.rest):
        first = groups[1].split("}")[0].strip("{ ")
        return tuple(int(number) for number in first.split(",") if number.strip())
    if iota := _IOTA.search(one.rest):
        return _iota(*iota.groups())
    return tuple(range(devices))


def _iota(groups: str, sizes: str, order: str | None) -> tuple[int, ...]:
    """The first group of ``[groups, members]<=[sizes]T(order)``: numbers 0, 1, … in that shape, transposed."""
    import numpy as np

    shape = [int(size) for size in sizes.split(",")]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    if order is not None:
        numbers = numbers.transpose([int(axis) for axis in order.split(",")])
    rows = int(groups.split(",", maxsplit=1)[0])
    return tuple(int(number) for number in numbers.reshape(rows, -1)[0])
