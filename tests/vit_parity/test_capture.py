"""Every activation of both models under one name; the oracles are numpy in float64 and torch's own outputs."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import vit_jax
import vit_torch
from conversion import Checkpoint
from tests.numpy_reference import forward
from tests.random_weights import random_images, random_params
from tests.small_configs import COMBINATIONS, CONFIGS
from vit_parity import Capture, activation_names, answer_name, capture_jax, capture_torch
from vit_spec import VitportError

PLAIN = COMBINATIONS["plain"]


def checkpoint(config) -> Checkpoint:
    return Checkpoint.of(config, random_params(config, seed=1, dtype=np.float32))


def random_batch(config, batch=2) -> np.ndarray:
    """(B, H, W, C) float32."""
    return random_images(config, batch, seed=2).transpose(0, 2, 3, 1).astype(np.float32)


def captured_torch(config, dtype=torch.float32) -> Capture:
    return capture_torch(vit_torch.create_model(weights=checkpoint(config), dtype=dtype).eval(), random_batch(config))


def jax_model(config, dtype="float32"):
    model = vit_jax.create_model(weights=checkpoint(config), dtype=dtype, param_dtype=dtype)
    model.eval()
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_torch_captures_every_named_activation_and_the_answer(name):
    """Oracle of the answer: tests/numpy_reference.py. Float32 on values of order 1; 1e-6 measured."""
    config = CONFIGS[name]
    found = captured_torch(config)
    assert tuple(found.activations) == activation_names(config)
    expected = forward(config, random_params(config, 1, np.float32), random_images(config, 2, 2))
    np.testing.assert_allclose(found.activations[answer_name(config)], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_both_frameworks_capture_the_same_under_the_same_names(name):
    """Oracle: each other, in float64; 1e-14 measured on values of order 1. Shapes, order and layout are equal too."""
    config = COMBINATIONS[name]
    expected = captured_torch(config, torch.float64)
    with jax.enable_x64(True):
        actual = capture_jax(jax_model(config, "float64"), random_batch(config))
    assert list(actual.activations) == list(expected.activations)
    for at, array in expected.activations.items():
        assert array.dtype == actual.activations[at].dtype == np.float64
        np.testing.assert_allclose(actual.activations[at], array, rtol=0, atol=1e-12, err_msg=at)


def test_attention_s_parts_fit_together():
    """By definition: rows of the softmax sum to one, it is the softmax of q k / sqrt(d), and heads are its product
    with v, side by side."""
    found = captured_torch(PLAIN, torch.float64).activations
    q, k, v = (found[f"blocks.1.attn.{part}"] for part in "qkv")
    weights = np.exp(np.einsum("bhnd,bhmd->bhnm", q, k) / np.sqrt(8))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(found["blocks.1.attn.softmax"], weights, rtol=0, atol=1e-14)
    heads = np.concatenate([weights[:, head] @ v[:, head] for head in range(3)], axis=-1)
    np.testing.assert_allclose(found["blocks.1.attn.heads"], heads, rtol=0, atol=1e-13)


def test_the_models_are_left_as_they_were():
    """No hook stays in torch, no wrapper in JAX, and the answer is that of the bare model, bit for bit in torch."""
    model = vit_torch.create_model(weights=checkpoint(PLAIN)).eval()
    mirror = jax_model(PLAIN)
    before = jax.tree.structure(nnx.state(mirror)), nnx.graphdef(mirror)
    found = capture_torch(model, random_batch(PLAIN))
    capture_jax(mirror, random_batch(PLAIN))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert (jax.tree.structure(nnx.state(mirror)), nnx.graphdef(mirror)) == before
    with torch.no_grad():
        answer = model(torch.tensor(random_batch(PLAIN)).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_array_equal(found.activations["logits"], answer)


def test_hooks_are_taken_off_when_the_run_fails():
    """Images of another size are refused by the model."""
    model = vit_torch.create_model(weights=checkpoint(PLAIN)).eval()
    with pytest.raises(VitportError, match="do not fit"):
        capture_torch(model, np.zeros((1, 8, 8, 3), np.float32))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_bfloat16_activations_keep_their_dtype():
    """Both frameworks' logits are bfloat16 in numpy too."""
    found = captured_torch(PLAIN, torch.bfloat16)
    mirror = capture_jax(jax_model(PLAIN, "bfloat16"), random_batch(PLAIN))
    assert found.dtype == mirror.dtype
    assert found.dtype.name == "bfloat16"
    assert found.facts["dtype"] == mirror.facts["dtype"] == "bfloat16"


def test_models_in_training_mode_are_refused():
    for run, model in (
        (capture_torch, vit_torch.create_model(weights=checkpoint(PLAIN))),
        (capture_jax, vit_jax.create_model(weights=checkpoint(PLAIN))),
    ):
        with pytest.raises(VitportError, match=r"model\.eval"):
            run(model, random_batch(PLAIN))
