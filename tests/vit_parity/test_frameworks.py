"""A checkpoint runs in the framework and dtype that were asked for, and JAX's 64-bit mode is switched in one place."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import vit_parity
from tests.small_configs import COMBINATIONS
from tests.vit_parity.runs import checkpoint, random_batch
from vit_parity import capture_jax, capture_torch
from vit_parity.frameworks import run_in
from vit_spec import VitportError

CONFIG = COMBINATIONS["plain"]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_models_run_in_the_dtype_that_is_asked_for(framework, dtype) -> None:
    """Every activation has it, and afterwards JAX is in its 32-bit mode again."""
    images = random_batch(CONFIG)
    found = run_in(
        framework,
        checkpoint(CONFIG),
        dtype,
        torch=lambda model: capture_torch(model, images),
        jax=lambda model: capture_jax(model, images),
    )
    assert found.title == framework
    assert {array.dtype.name for array in found.activations.values()} == {dtype}
    assert jax.numpy.asarray(np.zeros(1)).dtype == np.float32


def test_only_one_module_switches_jax_to_64_bits() -> None:
    sources = sorted(Path(vit_parity.__file__).parent.rglob("*.py"))
    assert [path.name for path in sources if "enable_x64" in path.read_text(encoding="utf-8")] == ["frameworks.py"]


def test_without_torch_the_way_to_it_is_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(VitportError, match=r"pip install 'vitport\[torch\]'"):
        run_in("torch", checkpoint(CONFIG), "float32", torch=lambda model: model, jax=lambda model: model)
