"""How attention's heads are concatenated, as index arrays."""

from __future__ import annotations

import numpy as np

from conversion.graph.expression import Expression, numbers
from conversion.graph.graph import NotUnderstoodError


def merge_order(order: np.ndarray, batch: int, heads: int, N: int, d: int, place: str) -> np.ndarray:
    """For each channel that is read of heads (batch, heads, N, d), its index if heads are concatenated in order.

    Args:
        order: indices of the elements that are read, token by token.

    Raises:
        NotUnderstoodError: if heads are not concatenated token by token.
    """
    stacked = numbers((batch, heads, N, d)).transpose(0, 2, 1, 3).reshape(batch * N, heads * d)
    order = order.reshape(-1, heads * d)
    first = order[0] if order.size else order
    found = first // (N * d) * d + first % d
    if (
        order.shape != stacked.shape
        or (first // d % N).any()
        or not np.array_equal(order, stacked[:, found % (heads * d)])
    ):
        raise NotUnderstoodError(f"The graph's {place} does not concatenate the heads of attention channel by channel.")
    return found


def taken(array: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``array[..., columns]``; a view, not a copy, if they are consecutive."""
    first = int(columns[0])
    if np.array_equal(columns, np.arange(first, first + len(columns))):
        return array[..., first : first + len(columns)]
    return array[..., columns]


def in_words(at: Expression) -> str:
    """An expression for messages."""
    return f"the result of {at.place}" if at.place else at.kind
