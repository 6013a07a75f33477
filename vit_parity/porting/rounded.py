"""Numbers rounded to fewer bits, and which result of a layer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Told = tuple[str, np.ndarray]
Rounding = Callable[[np.ndarray], np.ndarray]


def _to(bits: int, least: int) -> Rounding:
    """To so many bits, the leading one included, halves to even; below ``2**least`` the spacing stays."""

    def rounded(x: np.ndarray) -> np.ndarray:
        exponent = np.maximum(np.frexp(x)[1], least + 1)
        return np.ldexp(np.round(np.ldexp(x, bits - exponent)), exponent - bits)

    return rounded


ROUNDED: dict[str, Rounding] = {
    "bfloat16": _to(8, -126),
    "float16": _to(11, -14),
    "TensorFloat-32": _to(11, -126),
}
"""Formats that are coarser than float32."""


def products(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, product: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Iterator[Told]:
    """A layer of products whose weights, factors or results are rounded.

    Args:
        x: its input.
        weight: its matrix or kernel.
        bias: what is added, or zeros.
        product: of ``x`` and a weight.
    """
    for name, rounded in ROUNDED.items():
        yield f"rounds its weights to {name}", product(x, rounded(weight)) + bias
        yield f"rounds its weights to {name}", product(x, rounded(weight)) + rounded(bias)
        multiplied = product(rounded(x), rounded(weight))
        yield f"multiplies in {name}", multiplied + bias
        if name != "TensorFloat-32":
            yield f"computes in {name}", rounded(rounded(multiplied) + rounded(bias))


def is_rounded(words: str, target: np.ndarray) -> bool:
    """Whether a result is one of a format's numbers, as words say that it is computed in.

    Sums are rounded in another order here, so a number that lies between two of the format may fall to the other one:
    then not all agree, and the form of the numbers is the evidence.
    """
    name = words.removeprefix("computes in ")
    return name in ROUNDED and name != words and bool((ROUNDED[name](target) == target).all())
