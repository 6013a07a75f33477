from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import numpy_reference
from tests.random_weights import random_images, random_params
from tests.small_configs import BASE, COMBINATIONS, CONFIGS
from tests.vit_torch.models import torch_model
from vit_spec import ViTConfig, parameters
from vit_spec.vit.models import MODELS, PAPERS
from vit_torch import DropPath, VisionTransformer

REGISTERED = [model.config if model in PAPERS else model.config.replace(depth=1) for model in MODELS]


@pytest.mark.parametrize("config", [*CONFIGS.values(), *COMBINATIONS.values()])
def test_model_is_the_published_formula(config: ViTConfig):
    """Oracle: tests/numpy_reference.py. Measured 4.0e-15 on outputs up to 4."""
    params, images = random_params(config, 1), random_images(config, 2, 2)
    with torch.no_grad():
        actual = torch_model(config, params).eval()(torch.tensor(images)).numpy()
    np.testing.assert_allclose(actual, numpy_reference.forward(config, params, images), rtol=0, atol=1e-13)


@pytest.mark.parametrize("config", [*CONFIGS.values(), *REGISTERED])
def test_state_dict_has_the_canonical_names_and_shapes(config: ViTConfig):
    """Oracle: ``vit_spec.parameters``, which tests hold against timm's and Hugging Face's files."""
    with torch.device("meta"):
        model = VisionTransformer(config)
    actual = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert actual == {parameter.name: parameter.shape for parameter in parameters(config)}
    assert [name for name, _ in model.named_parameters()] == [parameter.name for parameter in parameters(config)]


@pytest.mark.parametrize("name", ["plain", "norm-pooled", "pre-norm", "registers", "position-all"])
def test_tokens_can_be_walked_block_by_block(name: str):
    config = CONFIGS[name]
    model = torch_model(config, random_params(config, 1)).eval()
    images = torch.tensor(random_images(config, 2, 2))
    tokens = model.embed(images)
    for block in model.blocks:
        tokens = block(tokens)
    tokens = model.norm(tokens)
    assert tokens.shape == (2, config.num_tokens, config.embed_dim)
    assert torch.equal(tokens, model.forward_features(images))
    assert torch.equal(model.forward_head(tokens), model(images))


def test_distilled_model_gives_two_logits_in_training_and_their_mean_in_evaluation():
    """Oracle: each head applied by hand to its own token."""
    config = CONFIGS["distilled"]
    model = torch_model(config, random_params(config, 1))
    images = torch.tensor(random_images(config, 2, 2))
    tokens = model.forward_features(images)
    assert model.head_dist is not None
    by_class, by_distillation = model.head(tokens[:, 0]), model.head_dist(tokens[:, 1])
    trained = model(images)
    assert isinstance(trained, tuple)
    assert torch.equal(trained[0], by_class)
    assert torch.equal(trained[1], by_distillation)
    assert torch.equal(model.eval()(images), (by_class + by_distillation) / 2)


def test_representation_size_is_ignored_with_a_warning_when_distilled():
    with pytest.warns(UserWarning, match="representation_size=13 is ignored because distilled=True"):
        config = BASE.replace(distilled=True, representation_size=13)
    assert isinstance(VisionTransformer(config).pre_logits, torch.nn.Identity)


def test_stochastic_depth_rises_linearly_over_the_blocks():
    model = VisionTransformer(BASE.replace(depth=5, drop_path_rate=0.2))
    assert [block.drop_path1.rate for block in model.blocks] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert [block.drop_path2.rate for block in model.blocks] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("rate", ["drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_each_rate_acts_in_training_alone(rate: str):
    """Oracle: two draws differ in training; in evaluation the model is the one without that rate, bit for bit."""
    torch.manual_seed(0)
    params, images = random_params(BASE, 1), torch.tensor(random_images(BASE, 4, 2))
    model = torch_model(BASE.replace(**{rate: 0.5}), params)
    assert not torch.equal(model(images), model(images))
    assert torch.equal(model.eval()(images), torch_model(BASE, params)(images))


def test_defaults_are_epsilon_1e_6_erf_gelu_and_no_dropout():
    with torch.device("meta"):
        model = VisionTransformer(ViTConfig())
    assert {module.eps for module in model.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}
    assert {module.rate for module in model.modules() if isinstance(module, DropPath)} == {0.0}
    x = torch.tensor([1.5])
    assert model.blocks[0].mlp.act(x) == torch.nn.functional.gelu(x)


def test_layer_scale_starts_at_the_configs_value():
    model = VisionTransformer(BASE.replace(layer_scale=0.25))
    assert model.blocks[1].ls2.gamma.tolist() == [0.25] * BASE.embed_dim


def test_reset_classifier_starts_afresh_and_touches_nothing_else():
    model = torch_model(CONFIGS["distilled"], random_params(CONFIGS["distilled"], 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.reset_classifier(7)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}


def test_bfloat16_error_against_float64(record_property):
    """Rounding to bfloat16 errs by up to 2**-8 of a value, 0.0016 in the root mean square. A token passes about 12
    roundings a block and 6 outside of them, so sqrt(12 * 2 + 6) * 0.0016 = 0.009 of the logits is expected; twice that
    is the bound. Measured 0.0046."""
    params, images = random_params(BASE, 1), random_images(BASE, 8, 2)
    exact = torch_model(BASE, params).eval()(torch.tensor(images)).detach()
    rounded = torch_model(BASE, params, torch.bfloat16).eval()(torch.tensor(images, dtype=torch.bfloat16)).detach()
    error = ((rounded.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()).item()
    record_property("bfloat16_error", error)
    assert rounded.dtype == torch.bfloat16
    assert 1e-3 < error < 0.018
