"""The tokens before the first block: patches or constants, and the position that is added to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conversion.graph.expression import Expression, View
from conversion.graph.fold import fold
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.layers import Layers, Norm
from conversion.graph.patches import Patches, patches_of

_MOST = 64
"""Most operations between patches and the first block."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Tokens of one image, one in each row: patches or constants."""

    patch: np.ndarray  # (N,)
    """Index of the patch; -1 for a constant."""
    token: np.ndarray  # (N, D)
    """The constant; zeros for patches."""
    table: np.ndarray  # (N, D)
    """What is added to it."""
    positioned: np.ndarray  # (N,)
    """Whether anything is added."""
    cell: np.ndarray  # (N,)
    """Index of the row of the resized table that is, or is added to, this one; -1 for none."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """Everything before the first block."""

    patches: Patches
    patch_norm: Norm | None
    norm_pre: Norm | None
    tokens: np.ndarray  # (prefix, D)
    table: np.ndarray | None  # (rows, D)
    positioned: int
    """Rows of the table that belong to prefix tokens."""
    table_grid: tuple[int, int]
    resize: Mapping[str, Any] | None
    """Attributes of the Resize node, if the graph resizes the table."""


class EmbeddingReader:
    """Reads the tokens that enter the first block."""

    def __init__(self, layers: Layers, batch: int) -> None:
        self.layers = layers
        self.batch = batch
        self._patches: tuple[Patches, Norm | None] | None = None
        self._resized: Expression | None = None
        self._tables: list[np.ndarray] = []
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._left = _MOST

    def read(self, at: Expression) -> Embedding:
        """The embedding whose output is ``at``.

        Raises:
            NotUnderstoodError: if it is not the embedding of a plain ViT.
        """
        norm_pre = self.layers.norm(at)
        if norm_pre is not None and norm_pre.x.order is None and not self._is_patches(norm_pre.x.expression):
            at = norm_pre.x.expression
        else:
            norm_pre = None
        rows = self._rows(at)
        if self._patches is None:
            raise NotUnderstoodError(f"The graph's {at.place} holds tokens, but no patches of the image.")
        patches, patch_norm = self._patches
        prefix = int((rows.patch < 0).sum())
        count = patches.grid[0] * patches.grid[1]
        if not np.array_equal(rows.patch, np.r_[[-1] * prefix, np.arange(count)]):
            raise NotUnderstoodError(
                f"The graph's {at.place} has {prefix} constant tokens among {count} patches, where constant tokens "
                "followed by all patches in order were expected."
            )
        return self._embedding(rows, prefix, patches, patch_norm, norm_pre)

    def _embedding(
        self, rows: Rows, prefix: int, patches: Patches, patch_norm: Norm | None, norm_pre: Norm | None
    ) -> Embedding:
        rows = self._told_apart(rows, prefix)
        tokens, grid, resize, table = rows.token[:prefix], patches.grid, None, None
        positioned = rows.positioned[prefix:]
        if (rows.cell >= 0).any() and self._resized is not None:
            inner = fold(self._resized.views[0])
            if inner.ndim != 4 or not np.array_equal(rows.cell[prefix:], np.arange(len(positioned))):
                at = self._resized.place
                raise NotUnderstoodError(f"The graph's {at} resizes something other than a position table.")
            resize, grid = self._resized.facts["settings"], inner.shape[2:]
            table = inner[0].reshape(inner.shape[1], -1).T
        elif positioned.all() and len(positioned):
            table = rows.table[prefix:]
        elif positioned.any():
            raise NotUnderstoodError("The graph adds positions to some patches and not to others.")
        before = int(np.argmin(rows.positioned[:prefix])) if not rows.positioned[:prefix].all() else prefix
        if (
            table is None or rows.positioned[before:prefix].any()
        ):  # no table has rows for these: they are part of tokens
            before = 0
        tokens = tokens + np.where(np.arange(prefix)[:, None] >= before, rows.table[:prefix], 0)
        if table is not None and before:
            table = np.concatenate([rows.table[:before], table])
        return Embedding(
            patches, patch_norm, norm_pre, tokens.astype(rows.token.dtype), table, before, (grid[0], grid[1]), resize
        )

    def _told_apart(self, rows: Rows, prefix: int) -> Rows:
        """Tells tokens from their positions where both are constants: positions are part of the patches' table."""
        if not self._pairs:
            return rows
        first, second = (
            all(any(_stored(pair[at]) is _stored(table) for table in self._tables) for pair in self._pairs)
            for at in range(2)
        )
        token, table, positioned = rows.token.copy(), rows.table.copy(), rows.positioned.copy()
        if first and not second:
            token[:prefix], table[:prefix] = rows.table[:prefix], rows.token[:prefix]
        elif not second:
            token[:prefix] += table[:prefix]
            table[:prefix], positioned[:prefix] = 0, False
        return replace(rows, token=token, table=table, positioned=positioned)

    def _is_patches(self, at: Expression) -> bool:
        return patches_of(at, self.layers, normed=True) is not None

    def _rows(self, at: Expression) -> Rows:
        self._left -= 1
        if self._left < 0:
            raise NotUnderstoodError(f"The graph assembles its tokens in more than {_MOST} steps.")
        if (found := self._patch_rows(at)) is not None:
            return found
        if at.kind == "constant":
            return self._constant(at.facts["array"], at)
        if at.kind == "select":
            return self._selected(at)
        if at.kind == "resize":
            return self._cells(at)
        step = self.layers.step(at)
        if step.kind == "shift" and step.x is not None and step.by is not None:
            return _added(self._rows(step.x), self._spread(step.by, at))
        if step.kind == "sum" and step.x is not None and step.y is not None:
            x, y = (step.x, step.y) if step.x.varies else (step.y, step.x)
            if not x.varies and not y.varies and {x.kind, y.kind} == {"constant"}:
                self._pairs.append((x.facts["array"], y.facts["array"]))
                return _added(self._constant(x.facts["array"], x), self._constant(y.facts["array"], y).token)
            if not y.varies:
                return _both(self._rows(x), self._rows(y), at)
        if not at.varies:
            return self._constant(fold(View(at, at.shape)), at)
        raise NotUnderstoodError(
            f"The graph's {at.place or at.kind} is not what was expected as tokens of the first block: patches of "
            "the image, constant tokens before them, and constants added to both."
        )

    def _patch_rows(self, at: Expression) -> Rows | None:
        norm = self.layers.norm(at)
        inner = at if norm is None or norm.x.order is not None else norm.x.expression
        found = patches_of(inner, self.layers, normed=True)
        if found is None:
            return None
        if self._patches is None:
            self._patches = (found, norm)
        N, D = found.grid[0] * found.grid[1], found.kernel.shape[0]
        none = np.zeros((N, D), found.kernel.dtype)
        return Rows(np.arange(N), none, none, np.zeros(N, bool), np.full(N, -1))

    def _constant(self, array: np.ndarray, at: Expression) -> Rows:
        rows = array.reshape(-1, array.shape[-1])
        if len(rows) > 1 and array.ndim > 2 and array.shape[0] == self.batch:
            rows = rows[: len(rows) // self.batch]
            if not (array.reshape(self.batch, *rows.shape) == rows).all():
                raise NotUnderstoodError(f"The graph's {at.place} has different constants for the images of a batch.")
        N = len(rows)
        return Rows(np.full(N, -1), rows, np.zeros_like(rows), np.zeros(N, bool), np.full(N, -1))

    def _spread(self, by: np.ndarray, at: Expression) -> np.ndarray:
        """A constant, broadcast to the rows of one image."""
        self._tables.append(by)
        whole = np.broadcast_to(by, at.shape).reshape(self.batch, -1, at.shape[-1])
        if not (whole == whole[:1]).all():
            raise NotUnderstoodError(f"The graph's {at.place} adds different constants to the images of a batch.")
        return whole[0]

    def _cells(self, at: Expression) -> Rows:
        """The rows of a resized position table, (1, D, h, w)."""
        if self._resized not in (None, at) or len(at.shape) != 4 or at.shape[0] != 1:
            raise NotUnderstoodError(f"The graph's {at.place} resizes something other than one position table.")
        self._resized = at
        N, D = at.shape[2] * at.shape[3], at.shape[1]
        none = np.zeros((N, D), np.float32)
        return Rows(np.full(N, -1), none, none, np.zeros(N, bool), np.arange(N))

    def _selected(self, at: Expression) -> Rows:
        """Rows of several expressions, one after the other."""
        bases, D = at.facts["bases"], at.shape[-1]
        order = at.facts["order"].reshape(-1, D)
        order = order[: len(order) // self.batch] if len(order) % self.batch == 0 and len(at.shape) > 2 else order
        found: list[Rows] = []
        ends = np.cumsum([base.size for base in bases])
        part = np.searchsorted(ends, order[:, 0], side="right")
        cuts = np.flatnonzero(np.diff(part)) + 1
        for block in np.split(np.arange(len(order)), cuts):
            base = bases[part[block[0]]]
            inside = order[block] - (ends[part[block[0]]] - base.size)
            cells = base.shape[2] * base.shape[3] if base.kind == "resize" and len(base.shape) == 4 else 0
            step, number = (cells, inside[:, 0]) if cells else (1, inside[:, 0] // D)
            if not np.array_equal(inside, inside[:, :1] + np.arange(D) * step) or (
                not cells and (inside[:, 0] % D).any()
            ):
                raise NotUnderstoodError(f"The graph's {at.place} splits tokens, where whole tokens were expected.")
            found.append(_taken(self._rows(base), number, at))
        return Rows(*(np.concatenate([getattr(rows, name) for rows in found]) for name in Rows.__dataclass_fields__))


def _stored(array: np.ndarray) -> np.ndarray:
    """The constant of the file of which an array is a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _taken(rows: Rows, number: np.ndarray, at: Expression) -> Rows:
    if number.max(initial=0) >= len(rows.patch):
        raise NotUnderstoodError(f"The graph's {at.place} mixes images of a batch.")
    return Rows(*(getattr(rows, name)[number] for name in Rows.__dataclass_fields__))


def _added(rows: Rows, by: np.ndarray) -> Rows:
    return replace(rows, table=rows.table + by, positioned=np.ones(len(rows.patch), bool))


def _both(rows: Rows, constant: Rows, at: Expression) -> Rows:
    """Tokens plus a table of which a part is resized."""
    if len(constant.patch) != len(rows.patch) or (rows.cell >= 0).any():
        raise NotUnderstoodError(f"The graph's {at.place} adds {len(constant.patch)} rows to {len(rows.patch)} tokens.")
    return replace(_added(rows, constant.token + constant.table), cell=constant.cell)
