"""Rotary positions: queries and keys are turned by angles that grow with the position (Su et al. 2021, RoFormer).

Attention then sees how far apart two patches are. Prefix tokens are never turned. The angles of all models but
:class:`MixedRotary` follow from the config. They are computed once, here, in float64, and both frameworks get the same
table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

from vit_spec.errors import VitportError
from vit_spec.validation import check_choices, check_types

AxisOrder = Literal["hw", "wh"]
"""Whether the first half of the angles is by row (``hw``) or by column (``wh``)."""
Pairs = Literal["halves", "neighbours"]
"""Which two channels of a head an angle turns: channels j and j + d / 2, or 2 j and 2 j + 1."""
Grid = tuple[int, int]
"""Rows and columns of patches."""
Table = tuple[tuple[float, ...], ...]
"""A row of d / 2 numbers for every token, d being the head width."""


@dataclass(frozen=True, kw_only=True, repr=False)
class _Rotary:
    kind: ClassVar[str]

    def __repr__(self) -> str:
        """The fields that are not the usual ones; long ones by their ends."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        told = [f"{name}={_shortened(it)}" for name, it in own.items() if it != usual[name]]
        return f"{type(self).__name__}({', '.join(told)})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, ``kind`` among them."""
        values = {name: list(it) if isinstance(it, tuple) else it for name, it in dataclasses.asdict(self).items()}
        return {"kind": self.kind} | values


@dataclass(frozen=True, kw_only=True, repr=False)
class DinoV3Rotary(_Rotary):
    """Coordinates from -1 to 1 whatever the grid, centres of patches (DINOv3, Siméoni et al. 2025, section 3.2).

    Angles are 2 pi times the coordinate over a period: d / 4 periods for rows, and the same for columns.
    """

    kind: ClassVar[str] = "dinov3"
    order: ClassVar[AxisOrder] = "hw"
    pairs: ClassVar[Pairs] = "halves"

    theta: float = 100.0
    """The periods are ``theta ** (j / (d / 4))`` for j from 0."""
    periods: tuple[float, ...] | None = None
    """Periods that a file holds and that are not theta's, as where they were rounded to bfloat16."""

    def all_periods(self, head_dim: int) -> tuple[float, ...]:
        """The d / 4 periods."""
        return self.periods or tuple(self.theta ** (4 * j / head_dim) for j in range(head_dim // 4))

    def axes(self, grid: Grid, head_dim: int) -> tuple[Table, Table]:
        """The angles of each row and of each column of patches."""
        periods = self.all_periods(head_dim)
        by_row, by_column = (
            tuple(
                tuple(2 * math.pi * (2 * (at + 0.5) / length - 1) / period for period in periods)
                for at in range(length)
            )
            for length in grid
        )
        return by_row, by_column


@dataclass(frozen=True, kw_only=True, repr=False)
class AxialRotary(_Rotary):
    """Coordinates that count patches (EVA-02, Fang et al. 2023; RoPE-ViT's axial form, Heo et al. 2024; PE)."""

    kind: ClassVar[str] = "axial"

    theta: float = 10000.0
    """Frequencies are ``theta ** (-j / (d / 4))`` for j from 0."""
    order: AxisOrder = "hw"
    offset: float = 0.0
    """Coordinate of the first row and column."""
    reference_grid: Grid | None = None
    """Rows and columns that coordinates are scaled to, the offset with them; ``None`` counts the image's own."""
    pairs: Pairs = "neighbours"

    def axes(self, grid: Grid, head_dim: int) -> tuple[Table, Table]:
        """The angles of each row and of each column of patches."""
        quarter = head_dim // 4
        frequencies = tuple(self.theta ** (-j / quarter) for j in range(quarter))
        by_row, by_column = (
            tuple(tuple((at + self.offset) / length * wanted * f for f in frequencies) for at in range(length))
            for length, wanted in zip(grid, self.reference_grid or grid, strict=True)
        )
        return by_row, by_column


@dataclass(frozen=True, kw_only=True, repr=False)
class MixedRotary(_Rotary):
    """Learned frequencies for rows and columns, of every head in every block (Heo et al. 2024, section 3.2)."""

    kind: ClassVar[str] = "mixed"
    pairs: ClassVar[Pairs] = "neighbours"

    theta: float = 10.0
    """Of the initial frequencies."""


Rotary = DinoV3Rotary | AxialRotary | MixedRotary
"""Each kind has its own fields."""
_KINDS: dict[str, type[Rotary]] = {kind.kind: kind for kind in (DinoV3Rotary, AxialRotary, MixedRotary)}


def _shortened(value: Any) -> str:
    return f"({value[0]!r}, …, {value[-1]!r})" if isinstance(value, tuple) and len(value) > 4 else repr(value)


def as_rotary(value: Any) -> Rotary | None:
    """Itself, or what :meth:`to_dict` wrote of it.

    Raises:
        VitportError: for anything else, with the kinds or fields that there are.
    """
    if value is None or isinstance(value, Rotary):
        return value
    kinds = ", ".join(_KINDS)
    if not isinstance(value, Mapping):
        raise VitportError(f"rotary={value!r} is not a kind of rotary positions: give {{'kind': …}}, one of {kinds}.")
    fields = dict(value)
    kind = _KINDS.get(str(fields.pop("kind", None)))
    if kind is None:
        raise VitportError(f"rotary has kind={value.get('kind')!r}: choose one of {kinds}.")
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := [name for name in fields if name not in known]:
        raise VitportError(f"rotary has no field {', '.join(map(str, unknown))}: {kind.kind} has {', '.join(known)}.")
    own: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in fields.items()}
    return kind(**own)


def check_rotary(rotary: Rotary, head_dim: int) -> None:
    """Refuse values that are no angles.

    Raises:
        VitportError: for the first of them.
    """
    check_types(rotary)
    check_choices(rotary)
    if head_dim % 4:
        raise VitportError(
            f"rotary positions turn heads whose width is a multiple of 4, but it is {head_dim}: choose another "
            "num_heads."
        )
    if not rotary.theta > 0:
        raise VitportError(f"rotary has theta={rotary.theta}: it must be positive.")
    if isinstance(rotary, DinoV3Rotary) and rotary.periods is not None:
        _check_numbers("periods", rotary.periods, head_dim // 4, (float, int))
    if isinstance(rotary, AxialRotary) and rotary.reference_grid is not None:
        _check_numbers("reference_grid", rotary.reference_grid, 2, (int,))


def _check_numbers(name: str, values: Any, count: int, kinds: tuple[type, ...]) -> None:
    right = isinstance(values, tuple) and len(values) == count
    if not right or not all(isinstance(it, kinds) and not isinstance(it, bool) and 0 < it < math.inf for it in values):
        raise VitportError(f"rotary has {name}={values!r}: it must be {count} positive numbers.")


@lru_cache(maxsize=16)
def turns(rotary: DinoV3Rotary | AxialRotary, grid: Grid, head_dim: int, prefix: int) -> tuple[Table, Table]:
    """Cosines and sines of every token's angles: (N, d / 2) each.

    Args:
        rotary: which angles.
        grid: rows and columns of patches.
        head_dim: d.
        prefix: tokens before the patches, whose angles are 0.
    """
    half = head_dim // 2
    tables = []
    for function, still in ((math.cos, 1.0), (math.sin, 0.0)):
        rows, columns = (tuple(tuple(map(function, angles)) for angles in axis) for axis in rotary.axes(grid, head_dim))
        patches = (row + column if rotary.order == "hw" else column + row for row in rows for column in columns)
        tables.append(((still,) * half,) * prefix + tuple(patches))
    return tables[0], tables[1]


@lru_cache(maxsize=16)
def places(grid: Grid, prefix: int) -> Table:
    """Column and row of every token, (N, 2), from 0; prefix tokens are at 0, where nothing turns."""
    rows, columns = grid
    patches = tuple((float(column), float(row)) for row in range(rows) for column in range(columns))
    return ((0.0, 0.0),) * prefix + patches
