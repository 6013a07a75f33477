"""Puts the toy family where a family's folders would be."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tests.toy_family import in_jax, in_torch
from tests.toy_family.spec import TOY
from vit_spec.family import FAMILIES


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "toy", TOY)
    modules: dict[str, ModuleType] = {"vit_torch.toy": in_torch, "vit_jax.toy": in_jax}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
