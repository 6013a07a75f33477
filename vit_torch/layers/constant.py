"""Arrays that a config determines: they belong to no state, and are never trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Constant(nn.Module):
    """A table of numbers in float64, or float32 on devices without it, whatever the dtype of its module.

    ``model.bfloat16()`` would round a buffer, and ``model.double()`` would not bring its digits back.

    Args:
        values: never changed afterwards.
    """

    def __init__(self, values: Any) -> None:
        super().__init__()
        self._exact = torch.tensor(values, dtype=torch.float64, device="cpu")
        self.values = nn.Buffer(self._exact, persistent=False)

    def __getitem__(self, index: Any) -> Tensor:
        return self.values[index]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Constant:
        """Follow the module to another device."""
        del recurse
        device = fn(torch.zeros((), dtype=torch.float32, device="cpu")).device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.values = nn.Buffer(self._exact.to(device, dtype), persistent=False)
        return self


def make_constant(values: Any, dtype: torch.dtype = torch.int64) -> nn.Buffer:
    """A constant of a module, from nested sequences of numbers.

    It moves between devices with the module, and has its values also in a module that is made on the meta device.
    """
    constant = torch.tensor(values, dtype=dtype)
    if constant.is_meta:
        constant = torch.tensor(values, dtype=dtype, device="cpu")
    return nn.Buffer(constant, persistent=False)


def make_table(values: tuple[tuple[float, ...], ...]) -> Constant:
    """A constant of a module, from rows of float64 numbers, of which none is lost."""
    return Constant(values)
