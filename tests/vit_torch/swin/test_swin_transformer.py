from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests import numpy_swin
from tests.random_weights import random_images, random_params
from tests.small_configs import SWIN_BASE, SWIN_CONFIGS
from tests.vit_torch.models import torch_model
from vit_spec import SwinConfig, VitportError, get_model, parameters
from vit_spec.swin.models import MODELS
from vit_torch import DropPath, attend_fused, create_model, set_attention
from vit_torch.swin import SwinTransformer

REGISTERED = {model.name: model.config for model in MODELS}


@pytest.mark.parametrize("name", SWIN_CONFIGS)
def test_model_is_the_published_formula(name: str):
    """Oracle: tests/numpy_swin.py. Measured 4.4e-15 on outputs up to 4."""
    config = SWIN_CONFIGS[name]
    params, images = random_params(config, 1), random_images(config, 1, 2)
    with torch.no_grad():
        actual = torch_model(config, params).eval()(torch.tensor(images)).numpy()
    np.testing.assert_allclose(actual, numpy_swin.forward(config, params, images), rtol=0, atol=1e-13)


@pytest.mark.parametrize("config", [*SWIN_CONFIGS.values(), *REGISTERED.values()], ids=[*SWIN_CONFIGS, *REGISTERED])
def test_state_dict_has_the_canonical_names_and_shapes(config: SwinConfig):
    """Oracle: ``vit_spec.parameters``, which tests hold against timm's sizes."""
    with torch.device("meta"):
        model = SwinTransformer(config)
    actual = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert actual == {parameter.name: parameter.shape for parameter in parameters(config)}
    assert [name for name, _ in model.named_parameters()] == [parameter.name for parameter in parameters(config)]


@pytest.mark.parametrize("name", ["swin", "swin-2-axis"])
def test_a_model_made_without_values_answers_once_it_has_some(name: str):
    """Offsets, regions and coordinates belong to no state, so nothing brings their values later."""
    config = SWIN_CONFIGS[name]
    params, images = random_params(config, 1), torch.tensor(random_images(config, 2, 2))
    with torch.device("meta"):
        model = SwinTransformer(config)
    model.load_state_dict({key: torch.tensor(array) for key, array in params.items()}, assign=True)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), torch_model(config, params).eval()(images))


@pytest.mark.parametrize("name", ["swin", "swin-pad", "swin-2"])
def test_fused_attention_gives_the_same(name: str):
    """Measured 1.3e-15."""
    config = SWIN_CONFIGS[name]
    model = torch_model(config, random_params(config, 1)).eval()
    images = torch.tensor(random_images(config, 3, 2))
    with torch.no_grad():
        expected = model(images)
        set_attention(model, attend_fused)
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["swin", "swin-2"])
def test_half_precision_stays_half_precision(name: str):
    """Of outputs up to 2.5, sqrt(40) roundings of 8 bits are 0.03. Version 2 multiplies cosines, which are rounded too,
    by up to 100, so its weights are off by up to a fifth: 0.1. Measured against float64: 0.008 and 0.032."""
    config = SWIN_CONFIGS[name]
    model = torch_model(config, random_params(config, 1), torch.bfloat16).eval()
    with torch.no_grad():
        actual = model(torch.tensor(random_images(config, 2, 2), dtype=torch.bfloat16))
        expected = torch_model(config, random_params(config, 1)).eval()(torch.tensor(random_images(config, 2, 2)))
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=0.03 if config.version == 1 else 0.1)


@pytest.mark.parametrize("version", [1, 2])
def test_initial_values_are_those_of_the_reference_code(version: int):
    """Oracle: ``_init_weights`` and constructors of microsoft/Swin-Transformer; torch's default for the convolution.

    Five standard errors of a standard deviation, 1 / sqrt(2 n) of it for n normal numbers, less for uniform ones.
    """
    torch.manual_seed(0)
    config = SWIN_BASE.replace(version=version, embed_dim=48, num_heads=(3, 6), num_classes=100)
    model = SwinTransformer(config)
    bound = 1 / math.sqrt(config.in_channels * config.patch_size**2)
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        at, _, leaf = name.rpartition(".")
        if at == "patch_embed.proj":
            assert values.abs().max() <= bound
            assert values.std() == pytest.approx(bound / math.sqrt(3), rel=5 / math.sqrt(2 * values.numel()))
        elif leaf == "relative_position_bias_table" or (leaf == "weight" and values.ndim > 1):
            assert values.std() == pytest.approx(0.02, rel=5 / math.sqrt(2 * values.numel())), name
            assert abs(values.mean()) < 0.005
        elif leaf == "logit_scale":
            torch.testing.assert_close(values, torch.full_like(values, math.log(10)))
        elif leaf == "weight":
            after_a_branch = version == 2 and at.rpartition(".")[2] in ("norm1", "norm2")
            assert torch.equal(values, torch.full_like(values, 0.0 if after_a_branch else 1.0)), name
        else:
            assert not values.any(), name


def test_a_dropped_block_of_version_2_and_1_is_the_identity():
    """Both branches are dropped together with their norms: the published block with every image dropped."""
    for name in ("swin", "swin-2"):
        model = torch_model(SWIN_CONFIGS[name], random_params(SWIN_CONFIGS[name], 1))
        block = model.segments()[0][1]
        for module in block.modules():
            if isinstance(module, DropPath):
                module.rate = 1 - 1e-12
        tokens = torch.randn(2, 240, 12, dtype=torch.float64)
        assert torch.equal(block(tokens), tokens)


def test_rates_of_stochastic_depth_rise_over_all_stages():
    """Oracle: torch.linspace, as in the reference code."""
    model = SwinTransformer(SWIN_BASE.replace(drop_path_rate=0.3, depths=(2, 4)))
    rates = [block.drop_path2.rate for blocks in model.segments() for block in blocks]
    assert rates == pytest.approx(torch.linspace(0, 0.3, 6).tolist(), abs=1e-7)


def test_a_new_head_is_drawn_anew_and_another_pooling_is_refused():
    model = SwinTransformer(SWIN_BASE)
    body = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("head")}
    model.reset_classifier(11)
    assert model.config == SWIN_BASE.replace(num_classes=11)
    assert model(torch.zeros(1, 3, *SWIN_BASE.image_size)).shape == (1, 11)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in body.items())
    model.reset_classifier(0)
    assert model(torch.zeros(1, 3, *SWIN_BASE.image_size)).shape == (1, model.num_features)
    with pytest.raises(VitportError, match="pool='token' does not fit a Swin Transformer"):
        model.reset_classifier(3, "token")


def test_a_name_gives_the_registered_config_with_overrides():
    with torch.device("meta"):
        model = create_model("swinv2_tiny_window8_256", num_classes=5, img_size=(64, 96), window_size=4)
    expected = get_model("swinv2_tiny_window8_256").config.replace(num_classes=5, image_size=(64, 96), window_sizes=4)
    assert model.config == expected
