"""Arrays that a config determines: they belong to no state, and are never trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def make_constant(values: Any, dtype: torch.dtype = torch.int64) -> nn.Buffer:
    """A constant of a module, from nested sequences of numbers.

    It moves between devices with the module, and has its values also in a module that is made on the meta device.
    """
    constant = torch.tensor(values, dtype=dtype)
    if constant.is_meta:
        constant = torch.tensor(values, dtype=dtype, device="cpu")
    return nn.Buffer(constant, persistent=False)
