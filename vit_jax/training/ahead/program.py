"""The text of a compiled program (HLO) as computations and instructions, and how often each of them runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from vit_spec import VitportError

_BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "f8e4m3": 8, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64,
    "c64": 64, "c128": 128,
}  # fmt: skip
_HEADER = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) (?:\(.*)?\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.-]+) = ")
_ARRAY = re.compile(r"\b(?P<dtype>\w+)\[(?P<sizes>[\d,<=]*)\](?:\{(?P<layout>[^}]*)\})?")
_OPCODE = re.compile(r"\s*(?P<opcode>[\w-]+)\(")
_NAME = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(
    r"\b(?P<how>calls|to_apply|body|condition|branch_computations|called_computations|true_computation|"
    r"false_computation)=(?P<which>%?[\w.-]+|\{[^}]*\})"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_MEMORY_SPACE = re.compile(r"S\((\d+)\)")
_TILE = re.compile(r"T\(([\d,]+)\)")


@dataclass(frozen=True)
class Array:
    """One array of a result."""

    dtype: str
    shape: tuple[int, ...]
    space: int = 0
    """Memory space: 0 is the device's main memory; others are memories on the chip."""
    held: tuple[int, ...] | None = None
    """The shape with the padding of its layout's tiles; ``None``: without padding."""

    @property
    def bytes(self) -> float:
        """Without padding."""
        return math.prod(self.shape) * _BITS[self.dtype] / 8

    @property
    def held_bytes(self) -> float:
        """In memory, with padding."""
        return math.prod(self.shape if self.held is None else self.held) * _BITS[self.dtype] / 8


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    """Of its result, in order; nested tuples are flattened."""
    operands: tuple[str, ...]
    called: tuple[tuple[str, str], ...]
    """How it calls computations, such as ``calls`` or ``body``, and their names."""
    rest: str
    """What stands behind the operands."""
    root: bool

    @property
    def trips(self) -> int | None:
        """How often the body of a ``while`` runs, where the compiler knows it."""
        found = _TRIPS.search(self.rest)
        return int(found[1]) if found else None

    @property
    def number(self) -> int | None:
        """Of a parameter; the value of an integer constant."""
        return int(self.operands[0]) if self.operands and self.operands[0].lstrip("-").isdigit() else None


@dataclass(frozen=True)
class Computation:
    """A function of the program."""

    name: str
    instructions: tuple[Instruction, ...]

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {one.name: one for one in self.instructions}

    @property
    def root(self) -> Instruction:
        return next((one for one in self.instructions if one.root), self.instructions[-1])

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        found: dict[str, list[Instruction]] = {}
        for one in self.instructions:
            for name in dict.fromkeys(one.operands):
                found.setdefault(name, []).append(one)
        return found


@dataclass(frozen=True)
class Program:
    """An optimised module, read by :func:`read_program`."""

    computations: dict[str, Computation]
    entry: str

    def executed(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """The instructions that the device runs one by one, and how often: in the entry, and in the bodies of loops
        and calls. Fusions are single instructions. Of branches the first counts. A loop that runs until its data say
        so, as those that draw random numbers by rejection do, counts once.
        """
        yield from self._within(self.entry, 1)

    def _within(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
        here = self.computations[name]
        for one in here.instructions:
            if one.opcode == "while":
                inner = dict(one.called)
                often = times * (self.trips(here, one) or 1)
                yield from self._within(inner["body"], often)
            elif one.opcode in ("call", "conditional"):
                for _, called in one.called[:1]:
                    yield from self._within(called, times)
            else:
                yield here, one, times

    def trips(self, here: Computation, loop: Instruction) -> int | None:
        """How often a loop's body runs, by the compiler's note or by its counter's start, end and step; ``None`` where
        its data decide."""
        return self._counted(here, loop) if loop.trips is None else loop.trips

    def _counted(self, here: Computation, loop: Instruction) -> int | None:
        """Of a loop that counts from a constant up to a constant in constant steps."""
        inner = dict(loop.called)
        condition = self.computations[inner["condition"]]
        compare = condition.root
        bounds = [condition.by_name.get(name) for name in compare.operands]
        if compare.opcode != "compare" or "direction=LT" not in compare.rest or None in bounds or len(bounds) != 2:
            return None
        counter, end = bounds
        assert counter is not None and end is not None
        place = re.search(r"index=(\d+)", counter.rest)
        first = here.by_name.get(loop.operands[0])
        if end.opcode != "constant" or place is None or first is None or first.opcode != "tuple":
            return None
        at = int(place[1])
        start = _constant(here, first.operands[at])
        body = self.computations[inner["body"]]
        step = _step(body, at) if body.root.opcode == "tuple" else None
        if start is None or step is None or end.number is None:
            return None
        return max(0, -(-(end.number - start) // step))


def _constant(here: Computation, name: str) -> int | None:
    """The number that a value is, behind copies."""
    one = here.by_name.get(name)
    while one is not None and one.opcode in ("copy", "bitcast", "convert"):
        one = here.by_name.get(one.operands[0])
    return one.number if one is not None and one.opcode == "constant" else None


def _step(body: Computation, at: int) -> int | None:
    """By how much a loop's body increases one element of what it carries."""
    one = body.by_name.get(body.root.operands[at])
    while one is not None and one.opcode in ("copy", "bitcast"):
        one = body.by_name.get(one.operands[0])
    if one is None or one.opcode != "add":
        return None
    steps = [number for name in one.operands if (number := _constant(body, name)) is not None]
    return steps[0] if steps and steps[0] > 0 else None


def read_program(text: str) -> Program:
    """Reads the text of an optimised module, as ``compiled.as_text()`` prints it.

    Raises:
        VitportError: if it has no entry.
    """
    computations: dict[str, Computation] = {}
    entry = name = ""
    lines: list[Instruction] = []
    for line in text.splitlines():
        if match := _HEADER.match(line):
            name, lines = match["name"], []
            entry = name if match["entry"] else entry
        elif line.startswith("}") and name:
            computations[name] = Computation(name, tuple(lines))
            name = ""
        elif name and (match := _INSTRUCTION.match(line)):
            lines.append(_instruction(match["name"], line[match.end() :], match["root"] is not None))
    if entry not in computations:
        raise VitportError("The text is not a compiled program: an ENTRY computation was expected.")
    return Program(computations, entry)


def _instruction(name: str, text: str, root: bool) -> Instruction:
    shape_end = _closing(text, 0) + 1 if text.startswith("(") else _first_space(text)
    opcode = _OPCODE.match(text, shape_end)
    if opcode is None:
        return Instruction(name, "", (), (), (), text, root)
    end = _closing(text, opcode.end() - 1)
    inside, rest = text[opcode.end() : end], text[end + 1 :]
    called = tuple(
        (match["how"], which)
        for match in _CALLED.finditer(rest)
        for which in re.findall(r"[\w.-]+", match["which"].strip("{}"))
    )
    operands = tuple(_NAME.findall(inside)) or tuple(part.strip() for part in inside.split(",") if part.strip())
    return Instruction(name, opcode["opcode"], arrays_of(text[:shape_end]), operands, called, rest, root)


def arrays_of(text: str) -> tuple[Array, ...]:
    """The arrays of a shape, in order."""
    found = []
    for match in _ARRAY.finditer(re.sub(r"/\*.*?\*/", "", text)):
        if match["dtype"] in _BITS:
            sizes = tuple(int(size.strip("<=")) for size in match["sizes"].split(",") if size)
            layout = match["layout"] or ""
            space = _MEMORY_SPACE.search(layout)
            found.append(Array(match["dtype"], sizes, int(space[1]) if space else 0, _padded(sizes, layout)))
    return tuple(found)


def _padded(shape: tuple[int, ...], layout: str) -> tuple[int, ...] | None:
    """The shape with the axes that a tile covers, the minor ones, rounded up to it."""
    order, tile = layout.partition(":")[0], _TILE.search(layout)
    if tile is None or not order:
        return None
    minor_first = [int(axis) for axis in order.split(",")]
    held = list(shape)
    for axis, size in zip(minor_first, reversed([int(size) for size in tile[1].split(",")]), strict=False):
        held[axis] = -(-held[axis] // size) * size
    return tuple(held)


def _first_space(text: str) -> int:
    return text.find(" ") if " " in text else len(text)


def _closing(text: str, start: int) -> int:
    """The position of the bracket that closes the one at ``start``."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] in "({[":
            depth += 1
        elif text[at] in ")}]":
            depth -= 1
            if depth == 0:
                return at
    return len(text) - 1
