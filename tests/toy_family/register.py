"""Puts the toy family where a family's folders would be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

import conversion
from tests.toy_family import identify, in_jax, in_torch, points
from tests.toy_family.spec import TOY
from vit_spec.family import FAMILIES

_MODULES: dict[str, ModuleType] = {
    "vit_torch.toy": in_torch,
    "vit_jax.toy": in_jax,
    "conversion.identify.toy": identify,
    "vit_parity.points.toy": points,
}


@contextmanager
def registered() -> Iterator[None]:
    """While it is open, the toy family is one of the project's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "toy", TOY)
        for name, module in _MODULES.items():
            patch.setitem(sys.modules, name, module)
        conversion.register_format(identify.FORMAT)
        yield
        conversion.unregister_format("toy")
