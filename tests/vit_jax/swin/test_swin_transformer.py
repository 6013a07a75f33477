from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from conversion import from_flax
from tests import numpy_swin
from tests.random_weights import random_images, random_params
from tests.small_configs import SWIN_BASE, SWIN_CONFIGS
from tests.vit_jax.models import jax_model, jax_output, nhwc, quick_jit
from vit_jax import attend_fused, create_model, get_params, set_attention
from vit_jax.swin import SwinTransformer
from vit_spec import SwinConfig, VitportError, get_model, parameters
from vit_spec.swin.models import MODELS

pytestmark = pytest.mark.jax_alone

SEED = 11  # that of tests/cross/test_swin_parity.py, so that each model is compiled once
REGISTERED = {model.name: model.config for model in MODELS if "tiny" in model.name}


def run(model: nnx.Module, images: jax.Array) -> jax.Array:
    graphdef, state = nnx.split(model)
    return quick_jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, images)


@pytest.mark.parametrize("name", ["swin-pad", "swin-2-pretrained"])
def test_model_is_the_published_formula(name: str):
    """Oracle: tests/numpy_swin.py; PyTorch's model is held against it for every option. Measured 4.0e-15."""
    config = SWIN_CONFIGS[name]
    actual = jax_output(config, SEED, 2, "float64")
    expected = numpy_swin.forward(config, random_params(config, SEED), random_images(config, 2, SEED))
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("config", [*SWIN_CONFIGS.values(), *REGISTERED.values()], ids=[*SWIN_CONFIGS, *REGISTERED])
def test_parameters_have_the_canonical_names_and_shapes(config: SwinConfig):
    """Oracle: ``vit_spec.parameters``; abstract, so a huge model costs nothing."""
    model = nnx.eval_shape(lambda: SwinTransformer(config, rngs=nnx.Rngs(0)))
    stand_ins = {path: np.broadcast_to(np.int8(0), array.shape) for path, array in get_params(model).items()}
    actual = {name: array.shape for name, array in from_flax(stand_ins).items()}
    assert actual == {parameter.name: parameter.shape for parameter in parameters(config)}


def test_state_is_parameters_and_nothing_else():
    config = SWIN_CONFIGS["swin-2"].replace(drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.1)
    _, params, rest = nnx.split(nnx.eval_shape(lambda: SwinTransformer(config, rngs=nnx.Rngs(0))), nnx.Param, ...)
    assert not jax.tree.leaves(rest)
    assert len(jax.tree.leaves(params)) == len(parameters(config))


@pytest.mark.parametrize("name", ["swin", "swin-2"])
def test_equal_configs_make_equal_graphs(name: str):
    """Otherwise each model of the same config would be compiled again."""
    models = [nnx.eval_shape(lambda: SwinTransformer(SWIN_CONFIGS[name], rngs=nnx.Rngs(0))) for _ in range(2)]
    first, second = (nnx.split(model)[0] for model in models)
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("name", ["swin", "swin-2"])
def test_fused_attention_gives_the_same(name: str):
    """Measured 1.1e-6 on outputs up to 3."""
    config = SWIN_CONFIGS[name]
    model = jax_model(config, random_params(config, 1), "float32")
    model.eval()
    images = nhwc(random_images(config, 3, 2), "float32")
    expected = run(model, images)
    set_attention(model, attend_fused)
    np.testing.assert_allclose(run(model, images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["swin", "swin-2"])
def test_half_precision_stays_half_precision(name: str):
    """Of outputs up to 2.5, sqrt(40) roundings of 8 bits are 0.03. Version 2 multiplies cosines, which are rounded too,
    by up to 100, so its weights are off by up to a fifth: 0.1. Measured against float64: 0.012 and 0.047."""
    config = SWIN_CONFIGS[name]
    model = jax_model(config, random_params(config, SEED), "bfloat16")
    model.eval()
    actual = run(model, nhwc(random_images(config, 2, SEED), "bfloat16"))
    assert actual.dtype == jnp.bfloat16
    expected = jax_output(config, SEED, 2, "float64")
    atol = 0.03 if config.version == 1 else 0.1
    np.testing.assert_allclose(np.asarray(actual, "float64"), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("version", [1, 2])
def test_initial_values_are_those_of_the_reference_code(version: int):
    """Oracle: ``_init_weights`` and constructors of microsoft/Swin-Transformer; torch's default for the convolution.

    Five standard errors of a standard deviation, 1 / sqrt(2 n) of it for n normal numbers, less for uniform ones.
    """
    config = SWIN_BASE.replace(version=version, embed_dim=48, num_heads=(3, 6), num_classes=100)
    bound = 1 / math.sqrt(config.in_channels * config.patch_size**2)
    for path, values in quick_jit(lambda: get_params(SwinTransformer(config, rngs=nnx.Rngs(0))))().items():
        *_, module, leaf = path.split("/")
        if path.startswith("patch_embed/proj"):
            assert abs(values).max() <= bound
            assert values.std() == pytest.approx(bound / math.sqrt(3), rel=5 / math.sqrt(2 * values.size))
        elif leaf in ("kernel", "relative_position_bias_table"):
            assert values.std() == pytest.approx(0.02, rel=5 / math.sqrt(2 * values.size)), path
            assert abs(values.mean()) < 0.005
        elif leaf == "logit_scale":
            np.testing.assert_allclose(values, math.log(10), rtol=1e-6)
        elif leaf == "scale":
            assert set(np.unique(values)) == {0.0 if version == 2 and module in ("norm1", "norm2") else 1.0}, path
        else:
            assert not values.any(), path


def test_gradients_are_finite_where_padding_is():
    """Version 2 divides keys by their length, which is 0 in the padding."""
    config = SWIN_CONFIGS["swin-2-no-qkv-bias"]
    graphdef, state = nnx.split(jax_model(config, random_params(config, 1), "float32"))
    images = nhwc(random_images(config, 1, 2), "float32")
    gradients = quick_jit(jax.grad(lambda state: nnx.merge(graphdef, state)(images).sum()))(state)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_a_new_head_is_drawn_anew_and_another_pooling_is_refused():
    model = nnx.eval_shape(lambda: SwinTransformer(SWIN_BASE, rngs=nnx.Rngs(0)))
    model.reset_classifier(11, rngs=nnx.Rngs(1))
    assert model.config == SWIN_BASE.replace(num_classes=11)
    assert isinstance(get_params(model)["head/fc/kernel"], jax.Array)  # the rest is abstract still
    assert get_params(model)["head/fc/kernel"].shape == (SWIN_BASE.num_features, 11)
    model.reset_classifier(0, rngs=nnx.Rngs(1))
    assert "head/fc/kernel" not in get_params(model)
    assert model.num_features == SWIN_BASE.num_features
    with pytest.raises(VitportError, match="pool='token' does not fit a Swin Transformer"):
        model.reset_classifier(3, "token", rngs=nnx.Rngs(1))


def test_training_without_random_numbers_is_refused():
    model = nnx.eval_shape(lambda: SwinTransformer(SWIN_BASE.replace(drop_path_rate=0.1), rngs=nnx.Rngs(0)))
    with pytest.raises(VitportError, match=r"drop_path_rate=0.1 needs rngs=nnx.Rngs\(dropout=key\)"):
        model(jnp.zeros((1, *SWIN_BASE.image_size, 3)))


def test_a_name_gives_the_registered_config_with_overrides():
    model = nnx.eval_shape(lambda: create_model("swin_tiny_patch4_window7_224", num_classes=5, img_size=(64, 96)))
    assert model.config == get_model("swin_tiny_patch4_window7_224").config.replace(num_classes=5, image_size=(64, 96))
