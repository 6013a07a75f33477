"""The two Swin Transformers with the same weights give the same outputs, maps and gradients, for every option."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from tests import numpy_swin
from tests.cross.test_parity import TOLERANCE, assert_gradients_agree, jax_gradients, torch_gradients
from tests.random_weights import random_images, random_params
from tests.small_configs import SWIN_CONFIGS
from tests.vit_jax.models import jax_model, jax_output, nhwc, quick_jit
from tests.vit_torch.models import torch_model
from vit_spec import VitportError

SEED = 11
QUICK = [
    "swin-odd-maps", "swin-roll-pad", "swin-rectangular-windows", "swin-axis", "swin-pad", "swin-never",
    "swin-margin", "swin-positions", "swin-2-odd-maps", "swin-2-min", "swin-2-rectangular-windows", "swin-2-pretrained",
]  # fmt: skip
IN_FLOAT32 = ["swin-odd-maps", "swin-2-odd-maps"]
WITH_GRADIENTS = ["swin-odd-maps", "swin-never", "swin-2-odd-maps"]


def slow_but(quick: list[str], names: Iterable[str]) -> list[Any]:
    """The names as parameters, marked slow but for some."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", slow_but(IN_FLOAT32, SWIN_CONFIGS))
def test_forward_agrees_in_float32(name: str):
    test_forward_agrees(name, "float32")


@pytest.mark.parametrize("name", slow_but(QUICK, SWIN_CONFIGS))
def test_forward_agrees(name: str, dtype: str = "float64"):
    """Oracle: each other; tests/numpy_swin.py is the one that neither of them is.

    Measured 2.0e-15 and 1.9e-6, of outputs up to 4; version 2 multiplies cosines by up to 100.
    """
    config = SWIN_CONFIGS[name]
    params, images = random_params(config, SEED), random_images(config, 2, SEED)
    with torch.no_grad():
        model = torch_model(config, params, getattr(torch, dtype)).eval()
        expected = model(torch.tensor(images, dtype=getattr(torch, dtype))).numpy()
    actual = jax_output(config, SEED, 2, dtype)
    assert actual.dtype == expected.dtype == np.dtype(dtype)
    assert 0.3 < np.abs(expected).max() < 10
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", slow_but(WITH_GRADIENTS, SWIN_CONFIGS))
def test_gradients_agree(name: str):
    """With respect to the images and every parameter, in training mode. Oracle: PyTorch's autograd. Measured 1.2e-14.

    No gradient is zero, so no parameter is idle, but where a logit scale is clamped.
    """
    config = SWIN_CONFIGS[name]
    params, images = random_params(config, SEED + 1), random_images(config, 2, SEED + 1)
    for key in params:
        if key.endswith("logit_scale"):
            params[key] = np.minimum(params[key], 4.5)
            params[key][-1] = 4.7  # clamped
    expected_outputs, expected = torch_gradients(torch_model(config, params), images, "float64")
    with jax.enable_x64(True):
        actual_outputs, actual = jax_gradients(jax_model(config, params), images, "float64")
    np.testing.assert_allclose(actual_outputs[0], expected_outputs[0], rtol=0, atol=TOLERANCE["float64"])
    for key, gradient in actual.items():
        assert not key.endswith("logit_scale") or not gradient[-1].any()
    assert_gradients_agree(actual, expected, 1e-10)


@pytest.mark.parametrize(("name", "norm"), [("swin-backbone-normed", True), ("swin-2-axis", False)])
def test_the_maps_of_all_stages_agree(name: str, norm: bool):
    """Oracle: tests/numpy_swin.py. Measured 1.4e-14 and 2.3e-13: version 2 multiplies the roundings of cosines by 100,
    and no pooling averages them."""
    config = SWIN_CONFIGS[name]
    params, images = random_params(config, 1), random_images(config, 1, 2)
    expected = numpy_swin.maps(config, params, images[0], norm)
    with torch.no_grad():
        in_torch = torch_model(config, params).eval().stages(torch.tensor(images), norm=norm)
    with jax.enable_x64(True):
        model = jax_model(config, params)
        model.eval()
        graphdef, state = nnx.split(model)
        in_jax = quick_jit(lambda state, x: nnx.merge(graphdef, state).stages(x, norm=norm))(state, nhwc(images))
    assert len(in_torch) == len(in_jax) == config.num_stages
    for ours, theirs, truth in zip(in_torch, in_jax, expected, strict=True):
        np.testing.assert_allclose(ours[0].permute(1, 2, 0), truth, rtol=0, atol=1e-12)
        np.testing.assert_allclose(theirs[0], truth, rtol=0, atol=1e-12)


def test_chosen_stages_come_in_the_asked_format():
    config = SWIN_CONFIGS["swin-odd-maps"]
    params, images = random_params(config, 1), random_images(config, 2, 2)
    model = torch_model(config, params).eval()
    with torch.no_grad():
        every = model.stages(torch.tensor(images))
        tokens, (last,) = model.forward_intermediates(torch.tensor(images), 1, norm=True, output_fmt="NLC")
        (second,) = model.forward_intermediates(torch.tensor(images), [-2], intermediates_only=True)
        assert torch.equal(tokens, model.forward_features(torch.tensor(images)))
        assert torch.equal(model.forward_head(tokens), model(torch.tensor(images)))
        assert torch.equal(model.pool(tokens), tokens.mean(1))
    assert torch.equal(last, tokens)
    assert torch.equal(second, every[1])
    with pytest.raises(VitportError, match=r"indices=\[3\] must name stages of the model: it has 3, numbered from 0"):
        model.forward_intermediates(torch.tensor(images), [3])
    with pytest.raises(VitportError, match="output_fmt='maps' is unknown"):
        model.forward_intermediates(torch.tensor(images), output_fmt="maps")
