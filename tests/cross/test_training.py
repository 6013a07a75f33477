"""Training mode with dropout and stochastic depth: the same masks put into both models give the same numbers."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from tests.cross.test_parity import TOLERANCE, assert_gradients_agree, jax_gradients, torch_gradients
from tests.random_weights import random_images, random_params
from tests.small_configs import COMBINATIONS
from tests.vit_jax.models import jax_model
from tests.vit_torch.models import torch_model
from vit_jax import DropPath as JaxDropPath
from vit_jax.layers.dropout import Dropout
from vit_torch import DropPath as TorchDropPath

RATES = {"drop_rate": 0.2, "attn_drop_rate": 0.3, "drop_path_rate": 0.4}
CASES = [("scaled", "float64"), ("swiglu-map", "float64"), ("rms-distilled", "float64"), ("rms-distilled", "float32")]


def mask(name: str, rate: float, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros at ``rate``, else ``1 / (1 - rate)``: a pure function, so both frameworks draw the same."""
    return np.random.default_rng(zlib.crc32(name.encode())).binomial(1, 1 - rate, shape) / (1 - rate)


def mask_shape(per_sample: bool, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *[1] * (len(shape) - 1)) if per_sample else shape


class TorchMask(torch.nn.Module):
    """Stands in for a dropout or a drop path."""

    def __init__(self, name: str, rate: float, per_sample: bool, seen: list[str]) -> None:
        super().__init__()
        self.name, self.rate, self.per_sample, self.seen = name, rate, per_sample, seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(self.name)
        return x * torch.tensor(mask(self.name, self.rate, mask_shape(self.per_sample, tuple(x.shape)))).to(x)


class JaxMask(nnx.Module):
    """The same in JAX."""

    def __init__(self, name: str, rate: float, per_sample: bool, note: Callable[[str], None]) -> None:
        self.name, self.rate, self.per_sample, self.note = name, rate, per_sample, note

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        assert rngs is not None, f"{self.name} was given no random numbers"
        self.note(self.name)
        return x * jnp.asarray(mask(self.name, self.rate, mask_shape(self.per_sample, x.shape)), x.dtype)


def mask_torch(model: torch.nn.Module, seen: list[str]) -> list[str]:
    """Puts masks in place of everything that draws random numbers; returns the names of what was replaced."""
    rates = {
        name: module.p if isinstance(module, torch.nn.Dropout) else module.rate
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Dropout | TorchDropPath)
    }
    found = [
        (name, rate, isinstance(model.get_submodule(name), TorchDropPath)) for name, rate in rates.items() if rate > 0
    ]
    for name, rate, per_sample in found:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, TorchMask(name, rate, per_sample, seen))
    return [name for name, _, _ in found]


def mask_jax(model: nnx.Module, note: Callable[[str], None]) -> list[str]:
    found = [
        (path, module.rate, isinstance(module, JaxDropPath))
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Dropout | JaxDropPath) and module.rate > 0
    ]
    for path, rate, per_sample in found:
        parent = model
        for part in path[:-1]:
            parent = parent[part] if isinstance(part, int) else getattr(parent, part)
        setattr(parent, path[-1], JaxMask(".".join(map(str, path)), rate, per_sample, note))
    return [".".join(map(str, path)) for path, _, _ in found]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_training_with_the_same_masks_agrees(name: str, dtype: str):
    """Outputs and gradients. Oracle: PyTorch's autograd; and the undropped model, which must differ."""
    config = COMBINATIONS[name].replace(depth=2, **RATES)
    params, images = random_params(config, 3), random_images(config, 3, 3)
    model = torch_model(config, params, getattr(torch, dtype))
    seen: list[str] = []
    replaced = mask_torch(model, seen)
    expected_outputs, expected = torch_gradients(model, images, dtype)
    noted: list[str] = []
    with jax.enable_x64(dtype == "float64"):
        mirror = jax_model(config, params, dtype)
        assert sorted(mask_jax(mirror, noted.append)) == sorted(replaced)
        actual_outputs, actual = jax_gradients(mirror, images, dtype)
    # pos_drop; four of each block and its two drop paths, of which the first block has none.
    assert len(replaced) == 1 + config.depth * 4 + (config.depth - 1) * 2
    assert sorted(seen) == sorted(set(noted)) == sorted(replaced), "each acts once in a forward pass"
    for ours, theirs in zip(actual_outputs, expected_outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE[dtype])
    assert_gradients_agree(actual, expected, TOLERANCE[dtype], turned=config.rotary is not None)
    undropped, _ = torch_gradients(torch_model(config.replace(**dict.fromkeys(RATES, 0.0)), params), images, "float64")
    assert all(np.abs(a - b).max() > 0.05 for a, b in zip(undropped, expected_outputs, strict=True))
