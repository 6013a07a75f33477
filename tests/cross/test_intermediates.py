"""Outputs of chosen blocks in both frameworks. Oracles: transformers, and the blocks run by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers

from tests.cross.test_transformers import CASES, SIZES, loaded
from tests.random_weights import random_images, random_params
from tests.small_configs import BASE, CONFIGS
from tests.vit_jax.models import jax_model, nhwc
from tests.vit_torch.models import torch_model
from vit_spec import ViTConfig, VitportError, block_indices

ATOL = 1e-12  # float64, values of order 1: 4500 ulps


def both(
    config: ViTConfig, params: dict[str, np.ndarray], images: np.ndarray, *args: Any, **options: Any
) -> list[list[np.ndarray]]:
    """What PyTorch and JAX give, each as a flat list of arrays."""
    with torch.no_grad():
        in_torch = torch_model(config, params).eval().forward_intermediates(torch.tensor(images), *args, **options)
    with jax.enable_x64(True):
        model = jax_model(config, params)
        model.eval()
        in_jax = model.forward_intermediates(nhwc(images), *args, **options)
        return [[np.asarray(array) for array in jax.tree.leaves(found)] for found in (in_torch, in_jax)]


def close(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=ATOL)


def test_maps_and_norms_are_those_of_transformers_backbone():
    """Oracle: ``Dinov2WithRegistersBackbone``, whose maps are (B, D, rows, columns), normalised."""
    case = CASES["Dinov2WithRegistersModel, packed SwiGLU"]
    config = transformers.Dinov2WithRegistersConfig(
        **SIZES, mlp_ratio=2, image_size=12, use_swiglu_ffn=True, num_register_tokens=3, out_indices=[1, 2]
    )
    params, images = random_params(case.ours, 5), random_images(case.ours, 2, 5)
    backbone = loaded(
        dataclasses.replace(case, theirs=lambda: transformers.Dinov2WithRegistersBackbone(config)), params
    )
    with torch.no_grad():
        expected = [it.numpy() for it in backbone(torch.tensor(images)).feature_maps]
    options: dict[str, Any] = {"norm": True, "output_fmt": "NCHW", "intermediates_only": True}
    for actual in both(case.ours, params, images, [0, 1], **options):
        close(actual, expected)


def test_tokens_are_the_hidden_states_of_transformers():
    """Oracle: ``ViTForImageClassification``'s hidden states, the first of which is the embedding."""
    case = CASES["ViTForImageClassification"]
    params, images = random_params(case.ours, 5), random_images(case.ours, 2, 5)
    with torch.no_grad():
        output = loaded(case, params)(torch.tensor(images), output_hidden_states=True)
    expected = [state.numpy() for state in output.hidden_states[1:]]
    options: dict[str, Any] = {"output_fmt": "NLC", "return_prefix_tokens": True, "intermediates_only": True}
    for actual in both(case.ours, params, images, **options):
        patches, prefix = actual[::2], actual[1::2]
        close([np.concatenate(pair, axis=1) for pair in zip(prefix, patches, strict=True)], expected)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", ["distilled", "position-all", "no-class-token", "norm-pooled", "parallel", "map"])
def test_pairs_maps_and_the_last_tokens_are_those_of_the_blocks_run_by_hand(name: str, norm: bool):
    config = CONFIGS[name].replace(depth=3)
    params, images = random_params(config, 1), random_images(config, 2, 2)
    model = torch_model(config, params).eval()
    tokens, expected = model.embed(torch.tensor(images)), []
    rows, columns = config.grid_size
    for at, block in enumerate(model.blocks):
        tokens = block(tokens)
        if at >= 1:
            given = model.norm(tokens) if norm else tokens
            prefix, patches = given[:, : config.num_prefix_tokens], given[:, config.num_prefix_tokens :]
            expected += [patches.reshape(2, rows, columns, -1), prefix]
    expected = [array.detach().numpy() for array in [model.norm(tokens), *expected]]
    for actual in both(config, params, images, 2, norm=norm, return_prefix_tokens=True, output_fmt="NHWC"):
        close(actual, expected)


def test_maps_have_the_order_of_axes_of_the_images():
    in_torch, in_jax = both(BASE, random_params(BASE, 0), random_images(BASE, 2, 0), 1, intermediates_only=True)
    assert in_torch[0].shape == (2, 24, 3, 5)
    assert in_jax[0].shape == (2, 3, 5, 24)
    close([in_torch[0].transpose(0, 2, 3, 1)], in_jax)


def test_no_block_after_the_last_chosen_one_is_run():
    """Oracle: weights of NaN in the block after it."""
    params = random_params(BASE, 0)
    params["blocks.1.norm1.weight"] = params["blocks.1.norm1.weight"] * np.nan
    for (first,) in both(BASE, params, random_images(BASE, 1, 0), [0], intermediates_only=True):
        assert np.isfinite(first).all()


@pytest.mark.parametrize(
    ("indices", "expected"), [(None, (0, 1, 2, 3)), (1, (3,)), (3, (1, 2, 3)), ([-1, 0], (0, 3)), ([2, 2, -2], (2,))]
)
def test_blocks_are_named_as_in_timm(indices: Any, expected: tuple[int, ...]):
    """Oracle: timm 1.0.31's ``feature_take_indices``, by hand; outputs come in the order of the blocks."""
    assert block_indices(indices, 4, "blocks") == expected


@pytest.mark.parametrize("indices", [0, -1, 5, [4], [-5], []])
def test_blocks_that_the_model_does_not_have_are_refused(indices: Any):
    with pytest.raises(VitportError, match=r"indices="):
        block_indices(indices, 4, "blocks")


def test_an_unknown_format_is_refused():
    with pytest.raises(VitportError, match="output_fmt='NHC' is unknown: choose one of NCHW, NHWC, NLC"):
        both(BASE, random_params(BASE, 0), random_images(BASE, 1, 0), output_fmt="NHC")
