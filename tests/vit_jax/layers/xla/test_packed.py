"""Joint layers in the form for a tensor axis: what devices hold is put together again. Oracle: the layers themselves.

Here the form alone, on one device; `tests/vit_jax/training/test_parallel.py` runs it on eight, and
`tests/vit_jax/training/scaling/test_compiled.py` counts what they exchange. Measured: equal bits; sums 5.3e-15 apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType

from vit_jax.layers.initialization import Init, make_linear
from vit_jax.layers.xla.packed import inputs_cut, sum_projections, unpacked

pytestmark = pytest.mark.jax_alone

AXES = ("data", "fsdp", "tensor")
MESH = AbstractMesh((1, 1, 4), AXES, axis_types=(AxisType.Auto,) * 3)
QKV, HIDDEN = (3, 8, 2), (24,)


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    monkeypatch.setattr(jax.lax, "with_sharding_constraint", lambda x, spec: x)
    with jax.enable_x64(True):
        yield


def layer(inputs: int, outputs: int, bias: bool, seed: int) -> nnx.Linear:
    made = make_linear(inputs, outputs, bias=bias, init=Init(nnx.Rngs(seed), jnp.float64, jnp.float64))
    for parameter in filter(None, (made.kernel, made.bias)):
        parameter[...] = jnp.asarray(np.random.default_rng(seed).normal(size=parameter.shape))
    return made


def over_tensor(run: Callable[[], object]) -> object:
    with jax.sharding.use_abstract_mesh(MESH):
        return run()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shapes", [(QKV,), (HIDDEN, QKV), (HIDDEN, HIDDEN), ((2, 8, 2),)])
def test_a_layer_taken_apart_by_devices_is_the_layer(shapes, bias) -> None:
    joint = layer(16, sum(math.prod(shape) for shape in shapes), bias, 1)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 5, 16)))
    whole = jnp.split(joint(x), [math.prod(shapes[0])] if len(shapes) == 2 else [], axis=-1)
    cut = jax.jit(lambda x: over_tensor(lambda: unpacked(joint, x, *shapes)))(x)
    for mine, plain, expected, shape in zip(cut, unpacked(joint, x, *shapes), whole, shapes, strict=True):
        expected = np.asarray(expected).reshape(2, 5, *shape)
        np.testing.assert_array_equal(plain, expected)
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("bias", [True, False])
def test_layers_summed_as_one_product_are_their_sum(bias) -> None:
    first, second = layer(16, 12, bias, 1), layer(24, 12, bias, 2)
    x, y = (jnp.asarray(np.random.default_rng(3).normal(size=(2, 5, width))) for width in (16, 24))
    expected = first(x) + second(y)
    np.testing.assert_array_equal(sum_projections((first, x), (second, y)), expected)
    cut = jax.jit(lambda x, y: over_tensor(lambda: sum_projections((first, x), (second, y))))(x, y)
    np.testing.assert_allclose(cut, expected, rtol=0, atol=1e-13)


def test_inputs_are_cut_by_what_divides_them() -> None:
    mesh = AbstractMesh((1, 4, 2), AXES)
    found = [inputs_cut(inputs, mesh) for inputs in (16, 12, 9)]
    assert found == [("fsdp", "tensor"), "tensor", None]
    assert inputs_cut(16, AbstractMesh((1, 4, 1), AXES)) is None
