"""The front door gives what the packages behind it give; the numbers' own oracles stand in those packages' tests."""

from __future__ import annotations

import dataclasses
import inspect
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import conversion
import vit_spec
import vitport
from tests import numpy_reference
from tests.random_weights import random_images, random_params
from tests.small_configs import BASE

PARAMS = random_params(BASE, 3, np.float32)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    conversion.save(conversion.Checkpoint.of(BASE, PARAMS), path, format="timm")
    return path


def exact(images: np.ndarray) -> np.ndarray:
    return numpy_reference.forward(BASE, {name: array.astype(np.float64) for name, array in PARAMS.items()}, images)


def test_everything_that_is_exported_is_there_and_described():
    for name in vitport.__all__:
        assert getattr(vitport, name).__doc__, name
    assert vitport.__version__ == version("vitport")
    with pytest.raises(AttributeError, match="No vitport attribute lode"):
        _ = vitport.lode


def test_names_are_those_of_the_registry():
    assert vitport.list_models() == [model.name for model in vit_spec.list_models()]
    assert vitport.list_models("vit_small*dinov2") == ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"]
    assert vitport.list_models("no such model") == []


def test_the_same_weights_give_the_same_function_in_both_frameworks(weights: Path):
    """Oracle: tests/numpy_reference.py; rounding in float32, on logits of order 1."""
    images = random_images(BASE, 2, 4)
    in_torch = vitport.create_model(weights=weights).eval()
    assert isinstance(in_torch, torch.nn.Module)
    with torch.no_grad():
        logits = in_torch(torch.tensor(images, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(logits, exact(images), rtol=0, atol=1e-5)
    in_jax = vitport.create_model(weights=vitport.load(weights), framework="jax")
    assert isinstance(in_jax, nnx.Module)
    in_jax.eval()
    logits = np.asarray(in_jax(jnp.asarray(images.transpose(0, 2, 3, 1), jnp.float32)))
    np.testing.assert_allclose(logits, exact(images), rtol=0, atol=1e-5)


def test_options_reach_the_model_of_either_framework():
    config = BASE.replace(in_channels=1, num_classes=3, depth=1)
    in_torch = vitport.create_model(BASE, in_chans=1, num_classes=3, depth=1, dtype=torch.bfloat16)
    assert in_torch.config == config
    assert in_torch.head.weight.dtype == torch.bfloat16
    in_jax = vitport.create_model(BASE, framework="jax", in_chans=1, num_classes=3, depth=1, param_dtype=jnp.bfloat16)
    assert in_jax.config == config
    assert in_jax.head.kernel.dtype == jnp.bfloat16


def test_an_unknown_framework_is_refused():
    with pytest.raises(vitport.VitportError, match="framework='tensorflow' is unknown: choose torch or jax"):
        vitport.create_model(BASE, framework="tensorflow")  # type: ignore[call-overload]


def test_a_verified_conversion_carries_the_tensors_and_its_certificate(weights: Path, tmp_path: Path):
    """Oracle: the arrays that were saved."""
    done = vitport.convert(weights, tmp_path / "w.orbax", to="flax", verify=True)
    assert done.certificate is not None
    assert done.certificate.passed, done.certificate.verdict
    again = vitport.load(tmp_path / "w.orbax")
    assert {name: again.params[name].tobytes() for name in again.params} == {
        name: array.tobytes() for name, array in PARAMS.items()
    }


def test_changes_reach_the_converter_and_are_told(weights: Path, tmp_path: Path):
    """Oracle: numpy's own rounding to half precision."""
    done = vitport.convert(weights, tmp_path / "half.safetensors", to="timm", dtype="float16", head="drop")
    assert done.certificate is None
    assert any("dtype float16" in note for note in done.notes)
    assert any("dropped the head" in note for note in done.notes)
    assert done.checkpoint.config.num_classes == 0
    for name in done.checkpoint.params:
        assert np.array_equal(done.checkpoint.params[name], PARAMS[name].astype(np.float16)), name


def test_convert_takes_every_change_that_the_converter_knows():
    taken = inspect.signature(vitport.convert).parameters
    for field in dataclasses.fields(conversion.Changes):
        assert taken[field.name].default == field.default
        assert taken[field.name].annotation == field.type


def test_a_conversion_that_cannot_be_verified_is_refused_before_anything_is_written(weights: Path, tmp_path: Path):
    with pytest.raises(vitport.VitportError, match="verify first"):
        vitport.convert(weights, tmp_path / "w", to="timm", image_size=16, verify=True)
    assert not (tmp_path / "w").exists()


def test_comparison_finds_the_block_that_was_changed(weights: Path, tmp_path: Path):
    """Oracle: the one bias that was changed, in the second block's MLP."""
    same = vitport.compare(weights)
    assert same.comparison.first_divergence is None
    assert same.explanations is None
    params = PARAMS | {"blocks.1.mlp.fc2.bias": PARAMS["blocks.1.mlp.fc2.bias"] + np.float32(0.1)}
    conversion.save(conversion.Checkpoint.of(BASE, params), tmp_path / "other.safetensors", format="timm")
    found = vitport.compare(weights, f"jax:{tmp_path / 'other.safetensors'}", gradients=True)
    assert found.comparison.first_divergence is not None
    assert found.comparison.first_divergence.name == "blocks.1.mlp.fc2"
    assert found.gradients
