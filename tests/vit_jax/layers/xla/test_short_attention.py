"""The TPU kernel for short sequences, in Pallas's interpreter. Oracles: numpy in float64; the written attention.

What libtpu's compiler makes of it: tests/vit_jax/training/ahead/test_small_programs.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.simulated import simulated
from vit_jax.layers.attention import attend, attend_flash
from vit_jax.layers.xla import short_attention
from vit_jax.layers.xla.short_attention import attend_packed, fits

pytestmark = pytest.mark.jax_alone
ROOT = Path(__file__).parents[4]
NEAR = {"float32": 32 * 2.0**-24, "bfloat16": 2 * 2.0**-8}
"""Of the largest value. In float32 sums of up to 257 products, whose errors grow like a random walk, sqrt(257) = 16
roundings, once in the logits and once in the heads; measured: 10 roundings at most. In bfloat16 what is written is
rounded once, and attention weights before their product, where errors average out; measured 0.9."""


def by_formulas(qkv: np.ndarray, heads: int, scale: float, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heads (B, N, D), and the gradient of ``(heads * weights).sum()``, in float64."""
    B, N, width = qkv.shape
    q, k, v = np.moveaxis(qkv.astype(np.float64).reshape(B, N, 3, heads, -1), (2, 3), (0, 2))  # (B, h, N, d) each
    own = np.moveaxis(weights.astype(np.float64).reshape(B, N, heads, -1), 2, 1)
    logits = scale * q @ k.swapaxes(-2, -1)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = own @ v.swapaxes(-2, -1)
    ds = scale * p * (dp - (p * dp).sum(-1, keepdims=True))
    gradients = np.stack([ds @ k, ds.swapaxes(-2, -1) @ q, p.swapaxes(-2, -1) @ own])  # (3, B, h, N, d)
    return np.moveaxis(p @ v, 1, 2).reshape(B, N, -1), np.moveaxis(gradients, (0, 3), (2, 1)).reshape(B, N, width)


def by_kernel(qkv: np.ndarray, heads: int, scale: float, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out, back = jax.vjp(lambda x: attend_packed(x, heads, scale), jnp.asarray(qkv))
    return np.asarray(out, np.float64), np.asarray(back(jnp.asarray(weights))[0], np.float64)


def inputs(tokens: int, heads: int, width: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Queries, keys and values side by side, and weights of the heads, of two images."""
    rng = np.random.default_rng(tokens + heads + width)
    qkv, weights = (rng.standard_normal((2, tokens, n * heads * width)) for n in (3, 1))
    return np.asarray(jnp.asarray(qkv, dtype)), np.asarray(jnp.asarray(weights, dtype))


def apart(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(found - exact).max() / np.abs(exact).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("tokens", "heads", "width"), [(197, 3, 64), (50, 4, 32), (257, 2, 80), (197, 1, 128)])
def test_heads_and_gradients_are_those_of_the_formulas(tokens, heads, width, dtype) -> None:
    qkv, weights = inputs(tokens, heads, width, dtype)
    scale = 2 * width**-0.5  # weights far from equal
    found, exact = (way(qkv, heads, scale, weights) for way in (by_kernel, by_formulas))
    assert apart(found[0], exact[0]) < NEAR[dtype]
    for part in range(3):  # of queries, of keys, of values
        own = slice(part * heads * width, (part + 1) * heads * width)
        assert apart(found[1][..., own], exact[1][..., own]) < NEAR[dtype]


@pytest.mark.parametrize("fault", ["the next head's columns", "keys and values", "the last key is left out"])
def test_a_planted_fault_is_far_off(fault, monkeypatch) -> None:
    qkv, weights = inputs(50, 2, 32, "float32")
    exact = by_formulas(qkv, 2, 0.3, weights)
    parts, product = short_attention._parts, short_attention._product
    if fault == "the next head's columns":
        monkeypatch.setattr(
            short_attention, "_parts", lambda width, own: parts(width, slice(32 - own.start, 64 - own.start))
        )
    elif fault == "keys and values":
        monkeypatch.setattr(short_attention, "_parts", lambda width, own: [parts(width, own)[at] for at in (0, 2, 1)])
    else:

        def without(left, right, axes):
            made = product(left, right, axes)
            last = jnp.arange(made.shape[1]) == made.shape[1] - 1
            return jnp.where(last & (made.shape[0] == made.shape[1]), -1e30, made)

        monkeypatch.setattr(short_attention, "_product", without)
    found = by_kernel(qkv, 2, 0.3, weights)
    assert apart(found[0], exact[0]) > 1000 * NEAR["float32"]


def test_in_a_scan_with_rematerialisation_it_is_the_written_attention() -> None:
    """Queries, keys and values apart, as layers give them to the kernel, forward and backward through three blocks.
    Measured 8.8e-7 of the largest value; logits and heads of three blocks round as above."""
    q, k, v = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 3, 10, 32)), jnp.float32)

    def slope(way):
        def block(x, scale):
            heads = way(x, k, v, 0.3, lambda weights: weights).reshape(2, 10, 3, 32).swapaxes(1, 2)
            return x + scale * heads, None

        return jax.grad(lambda q: (jax.lax.scan(jax.checkpoint(block), q, jnp.asarray([1.0, 0.5, 2.0]))[0] ** 2).sum())(
            q
        )

    found = apart(np.asarray(slope(attend_flash)), np.asarray(slope(attend)))
    assert found < 1e-5


SCRIPT = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from vit_jax.layers.attention import attend, attend_flash

mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
cut = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), "tensor"))
q, k, v = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 6, 50, 32)), jnp.float32)

def gradients(way, q, k, v):
    loss = lambda *parts: (way(*parts, 0.3, lambda weights: weights) ** 3).sum()
    return jax.value_and_grad(loss, (0, 1, 2))(q, k, v)

alone = gradients(attend, q, k, v)[1]
with jax.set_mesh(mesh):
    run = jax.jit(lambda *parts: gradients(attend_flash, *parts)[1]).lower(*jax.device_put((q, k, v), cut)).compile()
    found = run(*jax.device_put((q, k, v), cut))
apart = [float(abs(one - other).max() / abs(other).max()) for one, other in zip(found, alone)]
print(json.dumps({"apart": apart, "exchanged": [kind for kind in ("all-gather", "all-to-all") if kind in run.as_text()],
                  "cut": all(one.sharding.is_equivalent_to(cut, 4) for one in found)}))
"""


def test_over_a_mesh_each_device_runs_it_on_its_images_and_heads() -> None:
    """Eight simulated devices, data=2,fsdp=2,tensor=2, three heads each. Oracle: the written attention on one.
    Measured 1.0e-6."""
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=simulated(8), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert max(answer["apart"]) < 1e-5
    assert (answer["exchanged"], answer["cut"]) == ([], True)


def test_what_fits_the_memory_on_the_chip() -> None:
    """ViT-L's 197 tokens; those of 384 pixels in ViT-S, and not in ViT-L; 1,025 in none."""
    assert fits(197, 1024, "bfloat16")
    assert fits(257, 1408, "bfloat16")
    assert fits(577, 384, "bfloat16")
    assert not fits(577, 1024, "bfloat16")
    assert not fits(1025, 384, "bfloat16")
