"""Swin Transformers of transformers, with our weights written for them, answer as both of our models do.

Oracle: transformers' own classes. Version 1 runs with scaled dot-product attention, because its eager one casts the
softmax to float32. In float64 version 2's coordinates are replaced by float64 ones, which transformers computes in
float32. Each run has a new model: version 1 keeps the window of the smallest map that it has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import conversion
from tests.conversion.swin.test_huggingface import MODELS, V2, load
from tests.cross.test_parity import assert_gradients_agree, cotangent, jax_gradients, torch_gradients
from tests.cross.test_swin_parity import slow_but
from tests.random_weights import random_images, random_params
from tests.vit_jax.models import jax_model, nhwc, quick_jit
from tests.vit_torch.models import torch_model
from vit_parity.measure import relative
from vit_spec import SwinConfig
from vit_spec.swin.windows import windowings

UNSHIFTED = ("Swinv2ForImageClassification", V2.replace(image_size=16, window_sizes=8))
"""Maps as large as the window, and smaller."""
CASES = MODELS | {"v2-map-is-window": UNSHIFTED}
SEED = 5
QUICK = ["padded", "backbone", "v2-map-is-window"]


def weights(config: SwinConfig, most: float = math.inf) -> dict[str, np.ndarray]:
    """Random ones, with logarithms of the factors on cosines up to ``most``; up to 3 where version 2 masks:
    transformers adds the mask twice, which larger factors would show (4e-2 in one of ten models)."""
    params = random_params(config, SEED)
    most = min(most, 3.0) if any(any(windowing.shift) for windowing in windowings(config)) else most
    return {name: np.minimum(x, most) if name.endswith("logit_scale") else x for name, x in params.items()}


def answers(model: Any, images: Any, config: SwinConfig, kind: str) -> list[Any]:
    """What one of ours gives: logits, or tokens and their mean, or the maps of a backbone."""
    if config.num_classes:
        return [model(images)]
    if kind.endswith("Backbone"):
        return model.stages(images, norm=config.final_norm)
    tokens = model.forward_features(images)
    return [tokens, model.forward_head(tokens)]


def theirs(model: Any, images: torch.Tensor) -> list[np.ndarray]:
    """The same of theirs; maps with channels last."""
    with torch.no_grad():
        found = model(images)
    if hasattr(found, "feature_maps"):
        return [each.permute(0, 2, 3, 1).numpy() for each in found.feature_maps]
    if hasattr(found, "logits"):
        return [found.logits.numpy()]
    return [found.last_hidden_state.numpy(), found.pooler_output.numpy()]


def loaded(kind: str, config: SwinConfig, params: dict[str, np.ndarray], folder: Path, dtype: str) -> Any:
    conversion.save(conversion.Checkpoint.of(config, params), folder, format="huggingface")
    model, _ = load(kind, folder)
    return model.to(getattr(torch, dtype))


def ours(kind: str, config: SwinConfig, params: dict[str, np.ndarray], images: np.ndarray, dtype: str) -> list[Any]:
    """What our two models give: for each output a pair, of PyTorch and of JAX; maps with channels last."""
    with torch.no_grad():
        model = torch_model(config, params, getattr(torch, dtype)).eval()
        in_torch = answers(model, torch.tensor(images, dtype=getattr(torch, dtype)), config, kind)
    with jax.enable_x64(dtype == "float64"):
        model = jax_model(config, params, dtype)
        model.eval()
        graphdef, state = nnx.split(model)
        run: Callable[..., list[jax.Array]] = quick_jit(
            lambda state, x: answers(nnx.merge(graphdef, state), x, config, kind)
        )
        in_jax = run(state, nhwc(images, dtype))
    return [
        ((first.permute(0, 2, 3, 1) if first.ndim == 4 else first).numpy(), np.asarray(second))
        for first, second in zip(in_torch, in_jax, strict=True)
    ]


@pytest.mark.parametrize("name", slow_but(QUICK, CASES))
def test_both_models_agree_with_transformers(name: str, tmp_path: Path):
    """Logits, tokens and their mean, or maps, on maps below, at and above the window, and no multiples of it.

    Measured 4.2e-15 (version 1) and 9.4e-14 (version 2, which multiplies cosines by up to 100), of values up to 7.
    """
    kind, config = CASES[name]
    params, images = weights(config), random_images(config, 2, SEED)
    expected = theirs(loaded(kind, config, params, tmp_path / "hf", "float64"), torch.tensor(images))
    last = len(expected)  # their backbones give the last map if not asked for more
    for pair, right in zip(ours(kind, config, params, images, "float64")[-last:], expected, strict=True):
        assert right.dtype == np.float64
        assert 0.3 < np.abs(right).max() < 20
        for found in pair:
            np.testing.assert_allclose(found, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", slow_but(["v2-padded"], CASES))
def test_both_models_agree_with_transformers_in_float32(name: str, tmp_path: Path):
    """Logits and means of tokens within 1e-5, measured 2.1e-6 on logits up to 1.9; so are version 1's tokens and maps.

    Version 2 multiplies cosines by up to 20 here and norms what its branches give, so that roundings grow: a layer by
    itself is off by two of them (``test_no_layer_of_a_float32_run_is_off_by_more_than_its_roundings``), but tokens of
    transformers' own model, up to 3.7, end 4.6e-5 from those of the same model in float64. Single tokens of two models
    that round each for itself may then be as far apart. So all of them are within 1e-5 of their norm (measured
    3.8e-6 from float64), and as near to float64 as theirs are: at most twice as far, measured 1.3 times.
    """
    kind, config = CASES[name]
    params = {key: x.astype(np.float32) for key, x in weights(config, 3.0).items()}
    images = random_images(config, 2, SEED).astype(np.float32)
    expected = theirs(loaded(kind, config, params, tmp_path / "hf", "float32"), torch.tensor(images))
    exact = theirs(
        loaded(kind, config, {key: x.astype(np.float64) for key, x in params.items()}, tmp_path / "64", "float64"),
        torch.tensor(images, dtype=torch.float64),
    )
    pairs = ours(kind, config, params, images, "float32")[-len(expected) :]
    for pair, right, truth in zip(pairs, expected, exact, strict=True):
        assert right.dtype == np.float32
        single = config.version == 2 and right.ndim > 2
        most = max(1e-5, 2 * np.abs(right - truth).max()) if single else 1e-5
        for found in pair:
            assert np.abs(found - truth).max() <= most
            assert relative(found, right.astype(np.float64)) < 1e-5
            if not single:
                np.testing.assert_allclose(found, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", slow_but(["v2-clamped"], ["padded", "map-is-window", "v2", "v2-clamped"]))
def test_gradients_are_those_of_transformers(name: str, tmp_path: Path):
    """With respect to the images and every parameter. Their gradients are read as if they were weights, since renaming
    and joining are linear. Relative 1e-10; measured 2.8e-15 (version 1) and 6.6e-13 (version 2)."""
    kind, config = CASES[name]
    params, images = weights(config, 4.5), random_images(config, 2, SEED)  # a clamped one has no gradient
    model = loaded(kind, config, params, tmp_path / "hf", "float64")
    x = torch.tensor(images, requires_grad=True)
    logits = model(x).logits
    (logits * torch.tensor(cotangent(logits.shape, 0))).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    model.save_pretrained(tmp_path / "gradients")
    expected = dict(conversion.load(tmp_path / "gradients").params.items()) | {"images": x.grad.numpy()}
    _, in_torch = torch_gradients(torch_model(config, params).eval(), images, "float64")
    assert_gradients_agree(in_torch, expected, 1e-10)
    with jax.enable_x64(True):
        other = jax_model(config, params)
        other.eval()
        _, in_jax = jax_gradients(other, images, "float64")
    assert_gradients_agree(in_jax, expected, 1e-10)
