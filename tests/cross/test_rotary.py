"""Rotary layers of both frameworks in every dtype: angles are never coarser than float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import vit_torch
from tests.small_configs import BASE
from vit_jax.layers.rotary import turned as turned_in_jax
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, turns
from vit_torch.layers.rotary import make_rotary, turned

CONFIG = BASE.replace(rotary=DinoV3Rotary(), pos_embed="none", register_tokens=2)
COS, SIN = (np.array(part) for part in turns(DinoV3Rotary(), CONFIG.grid_size, 8, 3))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("way", ["to", "create_model"])
def test_a_model_of_any_dtype_keeps_its_exact_table(dtype: str, way: str) -> None:
    """``model.bfloat16()`` rounds buffers, and ``model.double()`` would not bring the digits back."""
    kind = getattr(torch, dtype)
    model = vit_torch.create_model(CONFIG, dtype=dtype if way == "create_model" else None)
    model = model.to(kind).to(kind)
    rotary = model.get_submodule("blocks.0.attn.rotary")
    np.testing.assert_array_equal(rotary.get_submodule("cos")[:].numpy(), COS)
    assert all(parameter.dtype == kind for parameter in model.parameters())
    assert not [name for name in model.state_dict() if "rotary" in name]


def test_a_model_on_the_meta_device_has_its_table_when_it_becomes_real() -> None:
    with torch.device("meta"):
        model = vit_torch.create_model(CONFIG)
    real = model.to_empty(device="cpu")
    np.testing.assert_array_equal(real.get_submodule("blocks.1.attn.rotary.sin")[:].numpy(), SIN)


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-15), ("float32", 2.0**-22), ("bfloat16", 2.0**-7)])
def test_both_frameworks_turn_alike(pairs: str, dtype: str, tolerance: float) -> None:
    """Oracle: complex numbers in float64. Two products, each rounded once, and a sum; results in 16 bits are rounded
    once more, from float32."""
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 18, 8))
    x = np.asarray(torch.tensor(x).to(getattr(torch, dtype)).double())
    a, b = (x[..., :4], x[..., 4:]) if pairs == "halves" else (x[..., ::2], x[..., 1::2])
    z = (a + 1j * b) * (COS + 1j * SIN)
    halves = pairs == "halves"
    expected = np.concatenate([z.real, z.imag], -1) if halves else np.stack([z.real, z.imag], -1).reshape(x.shape)
    in_torch = turned(torch.tensor(x).to(getattr(torch, dtype)), torch.tensor(COS), torch.tensor(SIN), pairs)
    assert in_torch.dtype == getattr(torch, dtype)
    with jax.enable_x64(dtype == "float64"):
        in_jax = turned_in_jax(jnp.asarray(x, dtype), jnp.asarray(COS), jnp.asarray(SIN), pairs)
        assert in_jax.dtype == jnp.dtype(dtype)
    for found in (in_torch.double().numpy(), np.asarray(in_jax, np.float64)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_prefix_tokens_are_returned_bit_for_bit() -> None:
    x = torch.randn(1, 3, 18, 8)
    y = make_rotary(CONFIG)(x)
    assert torch.equal(y[:, :, :3], x[:, :, :3])
    still = torch.isclose(y, x).all(dim=-1).all(dim=1)[0]
    assert still.nonzero().flatten().tolist() == [0, 1, 2, 10]  # and the patch in the centre, whose angles are 0


def test_a_common_offset_of_all_patches_is_seen_by_prefix_tokens_alone() -> None:
    """Attention between patches depends on differences of positions: the reason for gates on the class token."""
    products = []
    for offset in (0.0, 1.0):
        rotary = make_rotary(CONFIG.replace(rotary=AxialRotary(offset=offset)))
        q, k = (torch.randn(1, 3, 18, 8, generator=torch.Generator().manual_seed(at)).double() for at in (0, 1))
        products.append(rotary(q) @ rotary(k).transpose(-2, -1))
    moved = (products[0] - products[1]).abs().amax(dim=(0, 1))
    assert moved[3:, 3:].max() < 1e-13
    assert moved[:3, 3:].min() > 1e-3
