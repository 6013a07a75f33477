"""The collectives of a compiled program: what each moves, between which devices, how often, and beside what."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vit_jax.training.ahead.program import Computation, Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
         "collective-broadcast")  # fmt: skip
_GROUPS = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[(?P<mesh>[^\]]*)\](?P<order>[^{]*)\{(?P<axes>[^}]*)\}")
_MESH_AXIS = re.compile(r"'([^']+)'=(\d+)")
_GROUP_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")
_ORDER = re.compile(r"(?:\[[\d,]+\]<=)?\[([\d,]+)\](?:T\(([\d,]+)\))?")
_CHAIN = re.compile(r'chain_id="(\d+)"')
_CHANNEL = re.compile(r"channel_id=(\d+)")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")


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
    TPUs. A collective that starts in a fusion of its own, goes on within the fusions of other kernels and ends in
    another, all of the same chain, is one asynchronous collective.

    Args:
        devices: of the program.
    """
    result, seen = [], set()
    for here, one, times in program.executed():
        for chain, found in _of(program, here, one, times, devices, asynchronous=False):
            known = chain is not None and one.opcode == "fusion" and (here.name, found.kind, chain) in seen
            seen.add((here.name, found.kind, chain))
            if len(found.members) > 1 and not known:
                result.append(found)
    return result


def _of(
    program: Program, here: Computation, one: Instruction, times: int, devices: int, *, asynchronous: bool
) -> Iterator[tuple[str | None, Exchange]]:
    """Of one instruction, each with its chain: where the program names none, its channel."""
    kind = one.opcode.removesuffix("-start")
    if kind in KINDS:
        later = asynchronous or (one.opcode.endswith("-start") and '"is_sync":true' not in one.rest)
        chain = _CHAIN.search(one.rest) or _CHANNEL.search(one.rest)
        found = Exchange(kind, _bytes(here, one, kind), _members(one, devices), times, later)
        yield (chain[0] if chain else None, found)
    elif one.opcode in ("fusion", "async-start"):
        for _, name in one.called:
            inner = program.computations[name]
            later = asynchronous or one.opcode == "async-start" or _starts(inner)
            for each in inner.instructions:
                for chain, found in _of(program, inner, each, times, devices, asynchronous=later):
                    if each.opcode == "all-reduce" and _is_scattered(inner, each):
                        found = replace(found, kind="reduce-scatter", bytes=_input_bytes(inner, each))
                    yield chain, found


def _starts(inner: Computation) -> bool:
    return any(each.opcode == "custom-call" and "AsyncCollectiveStart" in each.rest for each in inner.instructions)


def _is_scattered(inner: Computation, reduction: Instruction) -> bool:
    users = inner.users.get(reduction.name, [])
    parts = [user for each in users if each.opcode == "get-tuple-element" for user in inner.users.get(each.name, [])]
    return any(user.opcode == "dynamic-slice" for user in (*users, *parts))


def _input_bytes(inner: Computation, reduction: Instruction) -> float:
    """Without the padding of tiles: TPUs reduce the tiles themselves, as arrays (tiles, 8, 128) of the same memory."""
    total = 0.0
    for name in reduction.operands:
        one = inner.by_name.get(name)
        while one is not None and one.opcode == "bitcast" and one.operands[0] in inner.by_name:
            one = inner.by_name[one.operands[0]]
        total += 0.0 if one is None else sum(array.bytes for array in one.arrays)
    return total


def _bytes(here: Computation, one: Instruction, kind: str) -> float:
    if kind == "reduce-scatter":
        return sum(array.bytes for name in one.operands if name in here.by_name for array in here.by_name[name].arrays)
    arrays = [array for array in one.arrays if array.shape or kind == "all-reduce"]
    if one.opcode in ("all-gather-start", "collective-permute-start"):  # operands stand before the results
        arrays = arrays[len(one.operands) : 2 * len(one.operands)]
    return sum(array.bytes for array in arrays)


def _members(one: Instruction, devices: int) -> tuple[int, ...]:
    if pairs := _PAIRS.search(one.rest):
        found = (pair.partition(",") for pair in pairs[1].strip("{}").split("},{"))
        apart = ((int(source), int(target)) for source, _, target in found if source != target)
        return next(apart, (0,))  # some devices may keep what they have
    if groups := _GROUPS.search(one.rest):
        first = groups[1].split("}")[0].strip("{ ")
        return tuple(int(number) for number in first.split(",") if number.strip())
    if mesh := _MESH.search(one.rest):
        return _along(mesh["mesh"], mesh["order"], mesh["axes"])
    if iota := _IOTA.search(one.rest):
        return _iota(*iota.groups())
    return tuple(range(devices))


def _iota(groups: str, sizes: str, order: str | None) -> tuple[int, ...]:
    """The first group of ``[groups, members]<=[sizes]T(order)``: numbers 0, 1, … in that shape, transposed."""
    rows = int(groups.split(",", maxsplit=1)[0])
    return tuple(int(number) for number in _numbers(sizes, order).reshape(rows, -1)[0])


def _along(mesh: str, order: str, axes: str) -> tuple[int, ...]:
    """The first group of ``mesh['a'=2,'b'=4] {'b'}``: the devices along some axes of a mesh, or along a part of one,
    ``'b':(1)2``: two, with one before them. The mesh may turn the devices' numbers: ``device_ids=([2,4]T(1,0))``."""
    sizes = {name: int(size) for name, size in _MESH_AXIS.findall(mesh)}
    given = _ORDER.search(order)
    numbers = np.arange(math.prod(sizes.values())) if given is None else _numbers(*given.groups())
    parts = {name: (int(before or 1), int(size or sizes[name])) for name, before, size in _GROUP_AXIS.findall(axes)}
    shape: list[int] = []
    taken: list[slice] = []
    for name, size in sizes.items():
        before, own = parts.get(name, (size, 1))
        shape += [before, own, size // (before * own)]
        taken += [slice(1), slice(None), slice(1)]
    return tuple(int(number) for number in numbers.reshape(shape)[tuple(taken)].flat)


def _numbers(sizes: str, order: str | None) -> np.ndarray:
    shape = [int(size) for size in sizes.split(",")]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers if order is None else numbers.transpose([int(axis) for axis in order.split(",")])
