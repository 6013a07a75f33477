"""Biases by relative position in a graph: what is added to the scores of attention, and the table it comes from."""

from __future__ import annotations

import numpy as np

from conversion.graph.expression import Expression, View
from conversion.graph.fold import fold
from conversion.graph.graph import NotUnderstoodError
from vit_spec.vit.relative import CLASS_ROWS, count_offsets, shares

_NEAR = {2: 1e-2}
"""How far numbers of so many bytes may be from each other, of the largest; 1e-6 for all wider ones."""

_MASKED = 1e4
"""Biases are smaller; a mask is larger, or infinite."""


def added(at: Expression) -> tuple[Expression, np.ndarray] | None:
    """What varies in a sum, and what does not, as numbers; ``None`` if it is no such sum."""
    if at.kind != "elementwise" or at.facts["op"] not in ("Add", "Sum") or len(at.args) != 2:
        return None
    varying = [arg for arg in at.args if isinstance(arg, View) and arg.expression.varies]
    fixed = [arg for arg in at.args if not (isinstance(arg, View) and arg.expression.varies)]
    if len(varying) != 1 or len(fixed) != 1 or varying[0].order is not None or varying[0].size != at.size:
        return None
    (given,) = fixed
    return varying[0].expression, fold(given) if isinstance(given, View) else np.asarray(given)


def table_of(bias: np.ndarray, grid: tuple[int, int], place: str) -> np.ndarray:
    """The table, (offsets, h), with three more rows where there is a class token before the patches.

    Args:
        bias: what is added to the scores of all images, (h, N, N).
        grid: rows and columns of patches.
        place: where it is added, in words.

    Raises:
        NotUnderstoodError: if what is added is no such bias.
    """
    heads, tokens, _ = bias.shape
    first, count = tokens - grid[0] * grid[1], count_offsets(grid, class_token=False)
    if first not in (0, 1):
        raise NotUnderstoodError(
            f"The graph's {place} adds numbers to the scores of {tokens} tokens, where patches and at most a class "
            "token were expected."
        )
    own = np.array(shares(grid))
    index = own[:, None] - own + own[-1]
    table = np.zeros((count + CLASS_ROWS * first, heads), bias.dtype)
    table[index] = bias[:, first:, first:].transpose(1, 2, 0)
    whole = np.zeros_like(bias)
    whole[:, first:, first:] = table[index].transpose(2, 0, 1)
    if first:
        table[-3:] = bias[:, 0, 1], bias[:, 1, 0], bias[:, 0, 0]
        whole[:, 0, 1:], whole[:, 1:, 0], whole[:, 0, 0] = table[-3][:, None], table[-2][:, None], table[-1]
    largest = np.abs(bias).max(initial=1e-30)  # a causal mask is the same for equal offsets too
    if not largest < _MASKED or np.abs(whole - bias).max() > _NEAR.get(bias.dtype.itemsize, 1e-6) * largest:
        raise NotUnderstoodError(
            f"The graph's {place} adds numbers to the scores that are no biases by relative position: other biases and "
            "masks on attention are not read."
        )
    return table
