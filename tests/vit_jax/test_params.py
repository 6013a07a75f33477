from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.random_weights import random_params
from tests.small_configs import BASE, CONFIGS
from tests.vit_jax.models import jax_model
from vit_jax import VisionTransformer, get_params, set_params
from vit_spec import Kind, VitportError, parameters

pytestmark = pytest.mark.jax_alone


def arrays(model: nnx.Module) -> dict[str, np.ndarray]:
    return {path: np.full(array.shape, i, np.float32) for i, (path, array) in enumerate(get_params(model).items())}


@pytest.mark.parametrize("name", CONFIGS)
def test_paths_and_shapes_are_those_of_the_list_of_parameters(name) -> None:
    """Oracle: the model's state; (out, in) is (in, out) there, (out, in, h, w) is (h, w, in, out)."""
    config = CONFIGS[name]
    held = get_params(nnx.eval_shape(lambda: VisionTransformer(config, rngs=nnx.Rngs(0))))
    axes = {Kind.LINEAR: (1, 0), Kind.CONV: (2, 3, 1, 0)}
    expected = {
        it.path: tuple(it.shape[axis] for axis in axes.get(it.kind, range(len(it.shape)))) for it in parameters(config)
    }
    assert {path: leaf.shape for path, leaf in held.items()} == expected


def test_params_set_are_the_params_got_for_a_real_and_an_abstract_model():
    real = jax_model(CONFIGS["distilled"], random_params(CONFIGS["distilled"], 0), "float32")
    abstract = nnx.eval_shape(lambda: VisionTransformer(CONFIGS["distilled"], rngs=nnx.Rngs(0)))
    for model in (real, abstract):
        given = arrays(model)
        set_params(model, given)
        got = get_params(model)
        assert got.keys() == given.keys()
        assert all(isinstance(got[path], jax.Array) and np.array_equal(got[path], given[path]) for path in given)
        assert model.blocks[0].mlp.fc1.kernel[0, 0] == given["blocks/0/mlp/fc1/kernel"][0, 0]


def test_all_faults_are_listed_at_once_and_nothing_is_changed():
    model = jax_model(BASE, random_params(BASE, 0), "float32")
    before, given = get_params(model), arrays(model)
    del given["cls_token"], given["blocks/0/norm1/bias"]
    given["blocks/0/atn/qkv/kernel"] = given["head/bias"]
    given["head/kernel"] = given["head/kernel"].T
    with pytest.raises(VitportError) as caught:
        set_params(model, given)
    for part in (
        "cls_token is missing",
        "blocks/0/norm1/bias is missing",
        "blocks/0/atn/qkv/kernel is unknown (nearest: blocks/0/attn/qkv/kernel)",
        "head/kernel has shape (7, 24) instead of (24, 7)",
    ):
        assert part in str(caught.value)
    assert all(np.array_equal(array, before[path]) for path, array in get_params(model).items())


def test_params_are_cast_to_the_models_dtype_and_copied():
    model = nnx.eval_shape(lambda: VisionTransformer(BASE, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16))
    given = arrays(model)
    set_params(model, given)
    given["head/bias"][:] = -1
    assert {array.dtype for array in get_params(model).values()} == {jnp.dtype(jnp.bfloat16)}
    assert (get_params(model)["head/bias"] >= 0).all()


def test_a_large_aligned_array_is_copied_too():
    """jax on a CPU may go on reading an aligned float32 buffer that it is given."""
    model = nnx.eval_shape(lambda: nnx.Linear(256, 256, use_bias=False, rngs=nnx.Rngs(0)))
    memory = np.zeros(256 * 256 + 16, np.float32)
    start = (-memory.ctypes.data // 4) % 16
    kernel = memory[start : start + 256 * 256].reshape(256, 256)
    set_params(model, {"kernel": kernel})
    kernel[:] = 1
    assert not get_params(model)["kernel"].any()
