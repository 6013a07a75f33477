"""What is captured is what the models compute; the oracles are the models' own forward passes and torch's hooks."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

import vit_jax
import vit_torch
from conversion import Checkpoint
from tests.random_weights import random_images, random_params
from tests.small_configs import CONFIGS
from vit_parity import activations_of, jax_activations, measure, torch_activations
from vit_spec import VitportError

NAMES = ("plain", "distilled", "features", "registers", "pre-norm", "norm-pooled")


def checkpoint(name: str) -> Checkpoint:
    return Checkpoint.of(CONFIGS[name], random_params(CONFIGS[name], seed=1, dtype=np.float32))


def random_batch(name: str) -> np.ndarray:
    """(3, H, W, C) float32; H and W differ."""
    return random_images(CONFIGS[name], batch=3, seed=2).transpose(0, 2, 3, 1).astype(np.float32)


def torch_model(name: str) -> vit_torch.VisionTransformer:
    return vit_torch.create_model(weights=checkpoint(name)).eval()


def jax_model(name: str) -> vit_jax.VisionTransformer:
    model = vit_jax.create_model(weights=checkpoint(name))
    model.eval()
    return model


@pytest.mark.parametrize("name", NAMES)
def test_torch_capture_is_what_the_forward_pass_computes(name):
    """Forward hooks see each module's output during model(x); they are equal bit for bit."""
    model = torch_model(name)
    seen = {}
    for at, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _module, _input, output, at=at: seen.update({f"blocks.{at}": output}))
    model.norm.register_forward_hook(lambda _module, _input, output: seen.update(norm=output))
    found = torch_activations(model, random_batch(name))
    with torch.no_grad():
        seen["embed"] = model.embed(torch.tensor(random_batch(name)).permute(0, 3, 1, 2))
        seen["head"] = model(torch.tensor(random_batch(name)).permute(0, 3, 1, 2))
    assert set(found) == set(seen)
    for stage, tensor in seen.items():
        np.testing.assert_array_equal(found[stage], tensor.double().numpy(), err_msg=stage)


@pytest.mark.parametrize("name", NAMES)
def test_jax_capture_is_what_the_forward_pass_computes(name):
    """Compiled in one piece the same numbers come out as step by step: max abs 1e-6 measured on values of order 1."""
    model = jax_model(name)
    found = jax_activations(model, random_batch(name))
    x = jax.numpy.asarray(random_batch(name))
    direct = {"embed": model.embed(x), "norm": model.forward_features(x), "head": model(x)}
    tokens = direct["embed"]
    for at, block in enumerate(model.blocks):
        direct[f"blocks.{at}"] = tokens = block(tokens)
    assert set(found) == set(direct)
    for stage, array in direct.items():
        np.testing.assert_allclose(found[stage], np.asarray(array), rtol=0, atol=1e-5, err_msg=stage)


def test_both_frameworks_give_the_same_names_in_the_order_of_computation():
    """The order is the forward pass's, also where block 10 would sort before block 2."""
    config = CONFIGS["plain"].replace(depth=11)
    weights = Checkpoint.of(config, random_params(config, seed=1, dtype=np.float32))
    found = activations_of(weights, random_batch("plain"))
    assert list(found) == ["torch", "jax"]
    for stages in found.values():
        assert list(stages) == ["embed", *(f"blocks.{at}" for at in range(11)), "norm", "head"]


def test_both_frameworks_run_the_same_weights_on_the_same_images():
    """Each stage agrees within float32 rounding; an image laid out wrongly differs by more than 0.1."""
    found = activations_of(checkpoint("plain"), random_batch("plain"))
    for stage, array in found["torch"].items():
        assert measure(found["jax"][stage], array).max_abs < 1e-5, stage
    turned = torch_activations(torch_model("plain"), random_batch("plain")[:, ::-1].copy())
    assert measure(turned["head"], found["torch"]["head"]).max_abs > 0.1


def test_capture_follows_the_model_s_dtype():
    """In float64 the two frameworks agree to 1e-12, which float32 anywhere on the way would spoil."""
    with jax.enable_x64(True):
        wide = vit_torch.create_model(weights=checkpoint("plain"), dtype=torch.float64).eval()
        mirror = vit_jax.create_model(weights=checkpoint("plain"), dtype=np.float64, param_dtype=np.float64)
        mirror.eval()
        images = random_images(CONFIGS["plain"], batch=1, seed=3).transpose(0, 2, 3, 1)
        expected, actual = torch_activations(wide, images), jax_activations(mirror, images)
    assert measure(actual["norm"], expected["norm"]).max_abs < 1e-12


def test_models_in_training_mode_are_refused():
    """A distilled model in training mode returns a pair, and dropout would be random."""
    for run, model in (
        (torch_activations, torch_model("plain").train()),
        (jax_activations, vit_jax.create_model(weights=checkpoint("plain"))),
    ):
        with pytest.raises(VitportError, match=r"model\.eval"):
            run(model, random_batch("plain"))
