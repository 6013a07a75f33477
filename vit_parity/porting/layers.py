"""What a layer of a known kind may compute instead: linear, convolution, embedding, norm, resizing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from vit_parity.bound import relative
from vit_parity.porting.norms import batch_norm, group_norm, layer_norm
from vit_parity.porting.resized import resized
from vit_parity.porting.rounded import products
from vit_parity.porting.stages import Observed, Parts

Told = tuple[str, np.ndarray]
Product = Callable[[np.ndarray, np.ndarray], np.ndarray]
PARTS = {2: "halves", 3: "thirds", 4: "quarters"}


def of_layer(
    seen: Observed, stage: str, kind: str | None, y: np.ndarray, target: np.ndarray, own: Parts
) -> Iterator[Told]:
    """Every alternative of a kind of layer.

    Args:
        seen: A's pass.
        stage: A's.
        kind: what it is, if that is known.
        y: what it returns.
        target: what B's returns, in the same axes.
        own: its parameters.
    """
    if kind == "embedding":
        ids = seen.values.get((stage, "<0"))
        if ids is not None and ids.dtype.kind in "iu":
            yield from _embedding(ids, y, own)
        return
    x = next((it.astype(np.float64) for it in seen.inputs(stage).values()), None)
    if x is None:
        return
    if kind == "linear":
        yield from _linear(x, y, own)
    elif kind in ("layer norm", "rms norm"):
        yield from layer_norm(x, y, target, own)
    elif kind == "batch norm":
        yield from batch_norm(x, target, own)
    elif kind == "group norm":
        yield from group_norm(x, y, target, own)
    elif kind == "convolution":
        yield from _convolution(x, own)
    elif kind is None:
        yield from resized(x, y)


def _embedding(ids: np.ndarray, y: np.ndarray, own: Parts) -> Iterator[Told]:
    """Rows of a table."""
    table = next((it.astype(np.float64) for it in own.arrays.values() if it.ndim == 2), None)
    if table is None or (*ids.shape, table.shape[1]) != y.shape or relative(table[ids], y) > 1e-6:
        return
    for by in (1, -1, 2, -2):
        where = f"looks up the row {'behind' if by > 0 else 'before'} each"
        words = where if abs(by) == 1 else where.replace("row", f"row {abs(by)}")
        yield words, table[(ids + by) % len(table)]
        yield words, table[np.clip(ids + by, 0, len(table) - 1)]
    root = math.sqrt(table.shape[1])
    yield "multiplies by sqrt(D)", y * root
    yield "divides by sqrt(D)", y / root
    yield "reads its table in another order (reshaped, not transposed)", table.T.reshape(table.shape)[ids]
    yield "turns the row of 0 to zeros", np.where((ids == 0)[..., None], 0, y)
    yield from products(np.ones(()), table, np.zeros(()), lambda _, rows: rows[ids])


def _linear(x: np.ndarray, y: np.ndarray, own: Parts) -> Iterator[Told]:
    weight = next((it.astype(np.float64) for name, it in own.arrays.items() if it.ndim == 2), None)
    if weight is None:
        return
    bias = next((it.astype(np.float64) for name, it in own.arrays.items() if name == "bias"), np.zeros(()))
    square = weight.shape[0] == weight.shape[1]
    straight = next((it for it in (weight.T, weight) if it.shape[0] == x.shape[-1] and it.shape[1] == y.shape[-1]
                     and relative(x @ it + bias, y) < 1e-5), None)  # fmt: skip
    if straight is None:
        return
    if square:
        yield "reads its matrix transposed", x @ straight.T + bias
    yield "reads its matrix in another order (reshaped, not transposed)", x @ straight.T.reshape(straight.shape) + bias
    yield "has the rows of its matrix reversed", x @ straight[::-1] + bias
    yield "has the columns of its matrix reversed, not its bias", x @ straight[:, ::-1] + bias
    for count in (2, 3, 4):
        if straight.shape[0] % count == 0:
            parts = np.split(straight, count, 0)
            for order in itertools.permutations(range(count)):
                if order != tuple(range(count)):
                    joined = np.concatenate([parts[at] for at in order], 0)
                    yield f"has the {PARTS[count]} of its input features in the order {order}", x @ joined + bias
    yield from products(x, straight, bias, lambda x, weight: x @ weight)


def _convolution(x: np.ndarray, own: Parts) -> Iterator[Told]:
    """Of two dimensions, by PyTorch's own product; A is PyTorch's here."""
    weight, facts = own.arrays.get("weight"), own.facts
    if weight is None or weight.ndim != 4 or x.ndim != 4 or not isinstance(facts.get("padding"), tuple):
        return
    kernel, bias = weight.astype(np.float64), own.arrays.get("bias")
    added = np.zeros(()) if bias is None else bias.astype(np.float64)[:, None, None]
    down, across = facts["padding"]
    usual = (across, across, down, down)
    product = _transposed_product(own) if facts.get("transposed") else _padded_product(own, usual)
    if facts["groups"] == 1 and kernel.shape[0] == kernel.shape[1]:
        yield "swaps the input and output channels of its kernel", product(x, kernel.swapaxes(0, 1)) + added
    yield "flips its kernel", product(x, kernel[:, :, ::-1, ::-1]) + added
    yield "flips the rows of its kernel", product(x, kernel[:, :, ::-1]) + added
    yield "flips the columns of its kernel", product(x, kernel[:, :, :, ::-1]) + added
    reverse = kernel[::-1] if facts.get("transposed") else kernel[:, ::-1]
    yield "has its input channels in reverse", product(x, reverse) + added
    if kernel.shape[2] == kernel.shape[3]:
        yield "swaps rows and columns of its kernel", product(x, kernel.swapaxes(2, 3)) + added
    yield from products(x, kernel, added, product)
    if facts.get("transposed"):
        yield from _cut(x, kernel, added, own)
        return
    modes = {"circular": "pads as a ring", "reflect": "pads by reflection", "replicate": "pads by repeating its edge"}
    for mode, words in modes.items() if down or across else ():
        if max(down, across) < min(x.shape[2:]):
            yield words, _padded_product(own, usual, mode)(x, kernel) + added
    for left, top in itertools.product(range(2 * across + 1), range(2 * down + 1)):
        if (left, top) != (across, down):
            sides = (left, 2 * across - left, top, 2 * down - top)
            words = f"pads by {sides[2:]} in height and {sides[:2]} in width"
            yield words, _padded_product(own, sides)(x, kernel) + added


def _padded_product(own: Parts, sides: tuple[int, ...], mode: str = "constant") -> Product:
    import torch
    from torch.nn.functional import conv2d, pad

    def product(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        image, weights = pad(torch.tensor(x.copy()), sides, mode), torch.tensor(kernel.copy())
        return conv2d(image, weights, None, own.facts["stride"], 0, own.facts["dilation"], own.facts["groups"]).numpy()

    return product


def _transposed_product(own: Parts, *, whole: bool = False) -> Product:
    """A product with a kernel (C, D, h, w); ``whole`` cuts nothing off."""
    import torch
    from torch.nn.functional import conv_transpose2d

    facts = own.facts
    edges = (0, 0) if whole else (facts["padding"], facts["output_padding"])

    def product(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        image, weights = torch.tensor(x.copy()), torch.tensor(kernel.copy())
        return conv_transpose2d(
            image, weights, None, facts["stride"], *edges, facts["groups"], facts["dilation"]
        ).numpy()

    return product


def _cut(x: np.ndarray, kernel: np.ndarray, added: np.ndarray, own: Parts) -> Iterator[Told]:
    """A transposed convolution's result is cut out of a larger one, at a place where libraries differ."""
    whole, sides = _transposed_product(own, whole=True)(x, kernel), own.facts["padding"]
    height, width = (size - 2 * side + more for size, side, more in zip(
        whole.shape[2:], sides, own.facts["output_padding"], strict=True))  # fmt: skip
    wide = np.pad(whole, ((0, 0), (0, 0), (0, height), (0, width)))
    for top, left in itertools.product(range(2 * sides[0] + 2), range(2 * sides[1] + 2)):
        if (top, left) != sides:
            words = f"cuts {top} rows and {left} columns off the start of its result, not {sides[0]} and {sides[1]}"
            yield words, wide[:, :, top : top + height, left : left + width] + added
