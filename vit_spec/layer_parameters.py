"""The parameters of the layers that models of several families have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vit_spec.parameter import Kind, Parameter, Split

Make = Callable[..., Parameter]
"""``Parameter``, given its stage and layer, and in a block its segment and index."""


def linear(
    make: Make, at: str, inputs: int, outputs: int, split: Split | None = None, *, bias: bool = True
) -> Iterator[Parameter]:
    """Weight (outputs, inputs) and bias of a linear layer."""
    yield make(name=f"{at}.weight", shape=(outputs, inputs), kind=Kind.LINEAR, split=split)
    if bias:
        yield make(name=f"{at}.bias", shape=(outputs,), kind=Kind.BIAS, split=split)


def norm(make: Make, at: str, width: int, *, bias: bool = True) -> Iterator[Parameter]:
    """Weight and bias of a norm."""
    yield make(name=f"{at}.weight", shape=(width,), kind=Kind.NORM)
    if bias:
        yield make(name=f"{at}.bias", shape=(width,), kind=Kind.BIAS)
