"""Swin Transformers under JAX's transformations: the oracle is the plain call of the same model."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import conversion
from tests.random_weights import random_images, random_params
from tests.small_configs import SWIN_BASE, SWIN_CONFIGS
from tests.vit_jax.models import jax_model, nhwc, quick_jit
from tests.vit_jax.test_transforms import CALL_EXPORTED, assert_gradients_close, train
from vit_jax.model import VisionModel
from vit_spec import SwinConfig

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.jax_alone

BOTH = ["swin-odd-maps-roll-pad", "swin-2-odd-maps"]
SLOW_SECOND = [BOTH[0], pytest.param(BOTH[1], marks=pytest.mark.slow)]
ATOL = 2e-5  # compiled together, operations round in another order, and version 2 multiplies cosines by up to 20


def model_and_images(config: SwinConfig, seed: int = 0) -> tuple[VisionModel, jax.Array]:
    params = random_params(config, seed)
    params |= {name: np.minimum(x, 3.0) for name, x in params.items() if name.endswith("logit_scale")}
    model = jax_model(config, params, "float32")
    model.eval()
    return model, nhwc(random_images(config, 3, 0), "float32")


@cache
def plain_call(name: str, seed: int = 0) -> np.ndarray:
    return np.asarray(called(*model_and_images(SWIN_CONFIGS[name], seed)))


def called(model: VisionModel, images: jax.Array) -> jax.Array:
    graphdef, state = nnx.split(model)
    return quick_jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, images)


def close(actual: object, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", SLOW_SECOND)
def test_jit_of_both_kinds_and_vmap_give_the_same_function(name: str):
    """Oracle: the jitted function of the state."""
    model, images = model_and_images(SWIN_CONFIGS[name])
    close(nnx.jit(lambda model, x: model(x))(model, images), plain_call(name))
    close(quick_jit(jax.vmap(lambda image: model(image[None])[0]))(images), plain_call(name))
    models = [model, model_and_images(SWIN_CONFIGS[name], 1)[0]]
    graphdef, _ = nnx.split(model)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(nnx.split(each)[1] for each in models))
    actual = quick_jit(jax.vmap(lambda state: nnx.merge(graphdef, state)(images)))(stacked)
    close(actual, np.stack([plain_call(name), plain_call(name, 1)]))


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_checkpointing_keeps_the_gradients_and_fewer_residuals(version: int):
    """Dropout included, whose keys are drawn again; residuals other than parameters shrink to less than a third."""
    drops = {"drop_rate": 0.2, "attn_drop_rate": 0.2, "drop_path_rate": 0.2}
    model, images = model_and_images(
        SWIN_BASE.replace(version=version, depths=(4,), num_heads=(2,), window_sizes=4, **drops)
    )
    model.train()
    key = jax.random.key(3)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))

    def gradients_and_residuals() -> tuple[nnx.State, int]:
        graphdef, state = nnx.split(model)
        loss = jax.vjp(lambda state: (train(nnx.merge(graphdef, state), images, key) ** 2).sum(), state)
        return loss[1](jnp.float32(1))[0], sum(leaf.size for leaf in jax.tree.leaves(loss[1]))

    plain, kept = gradients_and_residuals()  # op by op, to see the residuals
    model.set_grad_checkpointing()
    again, kept_again = gradients_and_residuals()
    assert_gradients_close(again, plain)
    assert kept_again - parameters < (kept - parameters) / 3


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_an_exported_model_is_called_in_another_process_with_weights_of_its_own(name: str, tmp_path: Path):
    """``jax.export`` over the state of ``nnx.split``, flat, since it takes no dictionary whose keys are numbers."""
    config = SWIN_CONFIGS[name]
    model, images = model_and_images(config)
    graphdef, state = nnx.split(model)
    exported = jax.export.export(jax.jit(lambda flat, x: nnx.merge(graphdef, flat)(x)))(
        nnx.to_flat_state(state), images
    )
    (tmp_path / "model.bin").write_bytes(exported.serialize())
    params = {
        key: np.minimum(x, 3.0) if key.endswith("logit_scale") else x for key, x in random_params(config, 0).items()
    }
    checkpoint = conversion.Checkpoint.of(config, {key: x.astype(np.float32) for key, x in params.items()})
    conversion.save(checkpoint, tmp_path / "weights.safetensors", format="timm")
    np.save(tmp_path / "images.npy", images)
    names = ("model.bin", "weights.safetensors", "images.npy", "logits.npy")
    command = [sys.executable, "-c", CALL_EXPORTED, *(str(tmp_path / name) for name in names)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    close(np.load(tmp_path / "logits.npy"), plain_call(name))


@pytest.mark.parametrize("name", SLOW_SECOND)
def test_an_adapter_alone_is_trained(name: str):
    """``nnx.LoRA`` on every layer of queries, keys and values: at its start the same function; then its parameters move
    and no others do, and the merged kernel gives what the adapter gives."""
    model, images = model_and_images(SWIN_CONFIGS[name])
    rngs = nnx.Rngs(0)
    layers = [block.attn for blocks in model.segments() for block in blocks]
    for attention in layers:
        dim, out = attention.qkv.kernel.shape
        attention.qkv = nnx.LoRA(dim, 2, out, base_module=attention.qkv, rngs=rngs)
    close(called(model, images), plain_call(name))
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
