"""The model under JAX's transformations: the oracle is the plain call of the same model."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import conversion
from tests.random_weights import random_images, random_params
from tests.small_configs import BASE, SWIN_BASE, SWIN_CONFIGS
from tests.vit_jax.models import jax_model, nhwc, quick_jit
from vit_jax import VisionTransformer
from vit_jax.model import VisionModel
from vit_spec import Config, VitportError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.jax_alone

DROPS: dict[str, Any] = {"drop_rate": 0.2, "attn_drop_rate": 0.2, "drop_path_rate": 0.2}
CONFIG = BASE.replace(layer_scale=1.0, **DROPS)
MODELS: dict[str, Config] = {
    "vit": CONFIG, "swin": SWIN_CONFIGS["swin-odd-maps-roll-pad"], "swin-2": SWIN_CONFIGS["swin-2-odd-maps"]
}  # fmt: skip
SLOW_LAST = ["vit", "swin", pytest.param("swin-2", marks=pytest.mark.slow)]
SLOW_BUT_VIT = ["vit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("swin", "swin-2"))]
ATOL = 1e-5  # compiled together, operations round in another order; logits of order 1 and u = 6e-8. Measured 8.3e-7


def weights(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Random ones, with factors on cosines up to 20."""
    params = random_params(config, seed)
    return {name: np.minimum(x, 3.0) if name.endswith("logit_scale") else x for name, x in params.items()}


def model_and_images(config: Config = CONFIG, seed: int = 0) -> tuple[VisionModel, jax.Array]:
    model = jax_model(config, weights(config, seed), "float32")
    model.eval()
    return model, nhwc(random_images(config, 3, 0), "float32")


@cache
def plain_call(name: str = "vit", seed: int = 0) -> jax.Array:
    """Operation by operation. Those of a Swin Transformer are compiled together, but not optimised: by themselves they
    take longer."""
    model, images = model_and_images(MODELS[name], seed)
    if name != "vit":
        return called(model, images)
    result = model(images)
    assert isinstance(result, jax.Array)
    return result


def called(model: VisionModel, images: jax.Array) -> jax.Array:
    graphdef, state = nnx.split(model)
    return quick_jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, images)


def assert_close(actual: jax.Array, expected: jax.Array):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=ATOL)


def assert_gradients_close(actual: nnx.State, expected: nnx.State):
    """Of each array's largest value. A gradient sums 3 * 16 products, which rounds by sqrt(48) u = 4e-7, and passes up
    to four blocks of two branches each: 3.3e-6. Measured 8.3e-7."""
    for mine, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=0, atol=3.3e-6 * float(jnp.abs(wanted).max()))


def test_split_and_merge_give_the_same_model():
    model, images = model_and_images()
    merged = nnx.merge(*nnx.split(model))
    assert merged.config == CONFIG
    assert jnp.array_equal(merged(images), plain_call())


def test_two_models_of_one_config_have_equal_structure():
    """Otherwise every new model would be compiled again."""
    (first, _), (second, _) = model_and_images(), model_and_images(seed=1)
    assert nnx.split(first)[0] == nnx.split(second)[0]
    assert hash(nnx.split(first)[0]) == hash(nnx.split(second)[0])


def test_jit_agrees_with_no_jit():
    model, images = model_and_images()
    graphdef, state = nnx.split(model)
    assert_close(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, images), plain_call())


@pytest.mark.parametrize("name", SLOW_LAST)
def test_nnx_jit_agrees_with_no_jit(name: str):
    model, images = model_and_images(MODELS[name])
    assert_close(nnx.jit(lambda model, x: model(x))(model, images), plain_call(name))


@pytest.mark.parametrize("name", SLOW_LAST)
def test_vmap_over_images_agrees(name: str):
    model, images = model_and_images(MODELS[name])
    assert_close(quick_jit(jax.vmap(lambda image: model(image[None])[0]))(images), plain_call(name))


@pytest.mark.parametrize("name", SLOW_LAST)
def test_vmap_over_stacked_models_agrees(name: str):
    models = [model_and_images(MODELS[name], seed)[0] for seed in (0, 1)]
    images = model_and_images(MODELS[name])[1]
    graphdef, _ = nnx.split(models[0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(nnx.split(model)[1] for model in models))
    actual = quick_jit(jax.vmap(lambda state: nnx.merge(graphdef, state)(images)))(stacked)
    assert_close(actual, jnp.stack([plain_call(name), plain_call(name, 1)]))
    assert abs(actual[0] - actual[1]).max() > 0.1


def test_grad_through_nnx_agrees_with_a_finite_difference():
    """Oracle: the central difference in float64 along a random direction; its error is of order h**2 = 1e-8."""
    with jax.enable_x64(True):
        model = jax_model(CONFIG, random_params(CONFIG, 0))
        model.eval()
        images = nhwc(random_images(CONFIG, 1, 0))
        graphdef, state = nnx.split(model)
        loss = nnx.grad(lambda model: model(images).sum())
        gradient = quick_jit(lambda state: loss(nnx.merge(graphdef, state)))(state)
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape) / 50, state)

        @quick_jit
        def along(h: float) -> jax.Array:
            return nnx.merge(graphdef, jax.tree.map(lambda leaf, d: leaf + h * d, state, direction))(images).sum()

        slope = (along(1e-4) - along(-1e-4)) / 2e-4
        products = jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-6)


def train(model: VisionModel, images: jax.Array, key: jax.Array) -> jax.Array:
    result = model(images, rngs=nnx.Rngs(dropout=key))
    assert isinstance(result, jax.Array)
    return result


def test_training_forward_depends_on_its_key_alone_under_both_kinds_of_jit():
    model, images = model_and_images()
    model.train()
    graphdef, state = nnx.split(model)
    with_jax = quick_jit(lambda state, key: train(nnx.merge(graphdef, state), images, key))
    with_nnx = nnx.jit(train)
    first = with_jax(state, jax.random.key(3))
    assert jnp.array_equal(with_jax(state, jax.random.key(3)), first)
    assert_close(with_nnx(model, images, jax.random.key(3)), first)
    assert abs(with_jax(state, jax.random.key(4)) - first).max() > 0.01


def test_train_step_with_nnx_leaves_parameters_only():
    """Gradient descent through ``nnx.value_and_grad``: the loss falls, the state keeps its structure."""
    config = BASE.replace(depth=1, drop_rate=0.1)
    model = jax_model(config, random_params(config, 0), "float32")
    images = nhwc(random_images(config, 3, 0), "float32")

    @nnx.jit
    def step(model: VisionTransformer, key: jax.Array) -> jax.Array:
        value, gradient = nnx.value_and_grad(lambda model: (train(model, images, key) ** 2).mean())(model)
        nnx.update(model, jax.tree.map(lambda p, g: p - 0.01 * g, nnx.state(model, nnx.Param), gradient))
        return value

    structure = jax.tree.structure(nnx.state(model))
    losses = [step(model, jax.random.key(0)) for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]
    assert jax.tree.structure(nnx.state(model)) == structure


@pytest.mark.parametrize("name", SLOW_BUT_VIT)
def test_checkpointing_keeps_the_gradients_and_fewer_residuals(name: str):
    """Dropout included, whose keys are drawn again; residuals other than parameters shrink to less than a third.

    In float64, for the compiler fuses otherwise what is computed again. The second version's cosine attention
    multiplies what it rounds by up to 100: 1e-12 of each array's largest value. Measured: 2.7e-14.
    """
    deep = {"vit": CONFIG.replace(depth=4)} | {
        f"swin{end}": SWIN_BASE.replace(version=version, depths=(4,), num_heads=(2,), window_sizes=4, **DROPS)
        for version, end in ((1, ""), (2, "-2"))
    }
    config = deep[name]
    with jax.enable_x64(True):
        model, images = jax_model(config, weights(config, 0)), nhwc(random_images(config, 3, 0))
        model.train()
        key = jax.random.key(3)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))

        def gradients_and_residuals() -> tuple[nnx.State, int]:
            graphdef, state = nnx.split(model)
            loss = jax.vjp(lambda state: (train(nnx.merge(graphdef, state), images, key) ** 2).sum(), state)
            return loss[1](jnp.ones(()))[0], sum(leaf.size for leaf in jax.tree.leaves(loss[1]))

        plain, kept = gradients_and_residuals()
        model.set_grad_checkpointing()
        again, kept_again = gradients_and_residuals()
        for mine, wanted in zip(jax.tree.leaves(again), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(mine, wanted, rtol=0, atol=1e-12 * float(jnp.abs(wanted).max()))
        assert kept_again - parameters < (kept - parameters) / 3
        model.set_grad_checkpointing(False)
        assert gradients_and_residuals()[1] == kept


def test_checkpointing_works_under_nnx_jit_and_changes_no_answer():
    model, images = model_and_images()
    model.set_grad_checkpointing()
    assert_close(nnx.jit(lambda model, x: model(x))(model, images), plain_call())
    model.train()
    key = jax.random.key(3)
    gradient = nnx.jit(nnx.grad(lambda model: (train(model, images, key) ** 2).sum()))(model)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_an_optimizer_of_nnx_trains_the_model():
    """The loss falls, with Adam's first step of about the learning rate for each parameter."""
    model, images = model_and_images()
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    before = jax.tree.leaves(nnx.state(model))
    value, gradient = nnx.value_and_grad(lambda model: (model(images) ** 2).mean())(model)
    optimizer.update(model, gradient)
    steps = [abs(new - old).max() for new, old in zip(jax.tree.leaves(nnx.state(model)), before, strict=True)]
    assert max(steps) == pytest.approx(1e-3, rel=1e-2)
    assert (model(images) ** 2).mean() < value


CALL_EXPORTED = """
import sys
import jax, numpy as np
from flax import nnx
from vit_jax import create_model
exported = jax.export.deserialize(open(sys.argv[1], "rb").read())
model = create_model(weights=sys.argv[2])
images = np.load(sys.argv[3])
np.save(sys.argv[4], exported.call(nnx.to_flat_state(nnx.state(model)), images))
"""


@pytest.mark.parametrize("name", SLOW_BUT_VIT)
def test_an_exported_model_is_called_in_another_process_with_weights_of_its_own(name: str, tmp_path: Path):
    """``jax.export`` over the state of ``nnx.split``, flat, since it takes no dictionary whose keys are numbers."""
    config = MODELS[name]
    model, images = model_and_images(config)
    graphdef, state = nnx.split(model)
    exported = jax.export.export(jax.jit(lambda flat, x: nnx.merge(graphdef, flat)(x)))(
        nnx.to_flat_state(state), images
    )
    (tmp_path / "model.bin").write_bytes(exported.serialize())
    params = {key: array.astype(np.float32) for key, array in weights(config, 0).items()}
    conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "weights.safetensors", format="timm")
    np.save(tmp_path / "images.npy", images)
    names = ("model.bin", "weights.safetensors", "images.npy", "logits.npy")
    command = [sys.executable, "-c", CALL_EXPORTED, *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_close(np.load(tmp_path / "logits.npy"), plain_call(name))


@pytest.mark.parametrize("name", SLOW_LAST)
def test_an_adapter_alone_is_trained(name: str):
    """``nnx.LoRA`` on every layer of queries, keys and values: at its start the same function; then its parameters move
    and no others do."""
    model, images = model_and_images(MODELS[name])
    rngs = nnx.Rngs(0)
    layers = [block.attn for blocks in model.segments() for block in blocks]
    for attention in layers:
        dim, out = attention.qkv.kernel.shape
        attention.qkv = nnx.LoRA(dim, 2, out, base_module=attention.qkv, rngs=rngs)
    assert_close(called(model, images), plain_call(name))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.LoRAParam)
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    loss = nnx.value_and_grad(lambda model: (model(images) ** 2).mean(), argnums=nnx.DiffState(0, nnx.LoRAParam))
    value, gradient = nnx.jit(loss)(model)
    optimizer.update(model, gradient)
    assert (called(model, images) ** 2).mean() < value
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    changed = [
        "/".join(str(part.key) for part in path)
        for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
        if not jnp.array_equal(old, new)
    ]
    assert len(changed) == len(layers)
    assert all(path.endswith("lora_b") for path in changed)


def test_the_state_of_a_layer_can_be_exported_as_it_is():
    """A layer without a list of layers has no keys that are numbers; gradients are exported with it."""
    model, _ = model_and_images()
    graphdef, state = nnx.split(model.blocks[0])
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, CONFIG.num_tokens, CONFIG.embed_dim)), jnp.float32)

    def block(state: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state)(x)

    loaded = jax.export.deserialize(jax.export.export(jax.jit(block))(state, x).serialize(vjp_order=1))
    assert_close(loaded.call(state, x), block(state, x))
    gradient = jax.grad(lambda state: loaded.call(state, x).sum())(state)
    expected = jax.grad(lambda state: block(state, x).sum())(state)
    assert_gradients_close(gradient, expected)


def test_metadata_that_is_no_plain_value_is_refused_by_name():
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0), kernel_metadata={"colour": object()})
    graphdef, state = nnx.split(layer)
    exported = jax.export.export(jax.jit(lambda state: nnx.merge(graphdef, state)(jnp.ones(2))))(state)
    with pytest.raises(VitportError, match="colour"):
        exported.serialize()
