"""``compile_inference``. Oracle: the model itself, called image by image in evaluation mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import conversion
import vit_jax
from tests.random_weights import random_params
from vit_jax.inference import compile_inference
from vit_jax.inference.compile import attend_forward
from vit_jax.layers.attention import attend, attend_fused
from vit_spec import Preprocessing, ViTConfig, VitportError

pytestmark = pytest.mark.jax_alone

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=4, num_classes=5, embed_dim=32, depth=2, num_heads=4, mlp_hidden_dim=64,
    drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.2,
)  # fmt: skip
PREPROCESSING = Preprocessing(size=(8, 12), mean=(0.3, 0.4, 0.5), std=(0.2, 0.25, 0.3))
TOLERANCE = 4e-6
"""Of the largest: fused attention divides after the product, and products of other rows are summed in another order.
Measured 3e-7."""


def _checkpoint(config: ViTConfig = CONFIG) -> conversion.Checkpoint:
    return conversion.Checkpoint.of(config, random_params(config, seed=1, dtype=np.float32), PREPROCESSING)


def _alone(checkpoint: conversion.Checkpoint, images: np.ndarray) -> np.ndarray:
    model = vit_jax.create_model(weights=checkpoint)
    model.eval()
    return np.concatenate([np.asarray(model(image[None])) for image in images])


@pytest.mark.parametrize("classes", [5, 0])
@pytest.mark.parametrize("to", [np.asarray, jax.numpy.asarray])
def test_logits_or_features_are_those_of_the_model(classes, to) -> None:
    checkpoint = _checkpoint(CONFIG.replace(num_classes=classes))
    images = np.random.default_rng(0).standard_normal((6, 8, 12, 3)).astype(np.float32)
    expected = _alone(checkpoint, images)
    found = np.asarray(compile_inference(checkpoint, 6)(to(images)))
    assert found.shape == (6, classes or 32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_uint8_images_are_normalised_as_the_checkpoint_says() -> None:
    checkpoint = _checkpoint()
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 12, 3), np.uint8)
    mean, std = (np.array(values, np.float32) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    expected = _alone(checkpoint, (images / np.float32(255) - mean) / std)
    found = [compile_inference(checkpoint, 4), compile_inference(checkpoint, 4, preprocessing=PREPROCESSING)]
    other = compile_inference(checkpoint, 4, preprocessing=Preprocessing(size=(8, 12)))
    for forward in found:
        np.testing.assert_allclose(forward(images), expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    assert np.abs(np.asarray(other(images)) - expected).max() > 1e-2


def test_a_path_is_read(tmp_path) -> None:
    checkpoint = _checkpoint()
    conversion.save(checkpoint, tmp_path / "w", format="timm")
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)
    found = compile_inference(tmp_path / "w", 2)(images)
    np.testing.assert_array_equal(found, compile_inference(checkpoint, 2)(images))


def test_the_model_keeps_its_mode_and_its_attention() -> None:
    model = vit_jax.create_model(weights=_checkpoint())
    attention = model.blocks[0].attn.attend
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)
    found = compile_inference(model, 2)(images)
    assert not model.deterministic
    assert model.blocks[0].attn.attend is attention
    np.testing.assert_array_equal(found, compile_inference(_checkpoint(), 2)(images))


@pytest.mark.parametrize(
    ("batch", "images", "sentence"),
    [
        (0, None, "batch must be 1 or more; got 0"),
        (4, np.zeros((3, 8, 12, 3), np.float32), "has 3 rows, and this function was compiled for 4: pad"),
        (4, np.zeros((4, 8, 12, 3), np.uint8), "uint8, and their mean and standard deviation are unknown: pass"),
    ],
)
def test_a_wrong_batch_is_one_sentence(batch, images, sentence) -> None:
    model = vit_jax.create_model(CONFIG)
    with pytest.raises(VitportError, match=sentence):
        compile_inference(model, batch)(images)


def test_weights_get_all_cores(tmp_path) -> None:
    """In a process whose JAX has not computed yet, with the cores of the machine counted as 3."""
    conversion.save(_checkpoint(), tmp_path / "w", format="timm")
    code = """
import json, sys
import numpy as np
import vit_jax.inference.data_parallel as data_parallel
from vit_jax.inference import compile_inference
data_parallel.cores = lambda: 3
forward = compile_inference(sys.argv[1], 6)
print(json.dumps([forward.mesh.size, len(forward(np.zeros((6, 8, 12, 3), np.uint8)).sharding.device_set)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "w")], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[3], env={"PATH": "/usr/bin", "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [3, 3]


@pytest.mark.parametrize("tokens", [5, 1000])
def test_attention_of_few_and_of_many_tokens_is_the_softmax_of_numpy(tokens: int) -> None:
    """Oracle: numpy, float64. Measured: 1.2e-7 of values up to 1.2; float32 has 6e-8 a rounding."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 2, tokens, 4)).astype(np.float32) for _ in range(3))
    logits = 0.5 * q.astype(np.float64) @ k.swapaxes(-2, -1)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    expected = (powers / powers.sum(-1, keepdims=True) @ v).swapaxes(1, 2).reshape(1, tokens, 8)
    found = attend_forward(*map(jnp.asarray, (q, k, v)), 0.5, lambda x: x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    kernel = attend if tokens == 1000 else attend_fused
    np.testing.assert_array_equal(found, kernel(*map(jnp.asarray, (q, k, v)), 0.5, lambda x: x))
