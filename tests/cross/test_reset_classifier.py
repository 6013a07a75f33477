"""New heads and another pooling in both frameworks. Oracle: tests/numpy_reference.py, with the new heads' weights."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from conversion import from_flax
from tests import numpy_reference
from tests.random_weights import random_images, random_params
from tests.small_configs import CONFIGS
from tests.vit_jax.models import jax_model, nhwc
from tests.vit_torch.models import torch_model
from vit_jax import get_params
from vit_spec import VitportError


@pytest.mark.parametrize(
    ("name", "classes", "pool"),
    [("plain", 5, None), ("plain", 0, "token_avg"), ("map", 4, "avg"), ("distilled", 3, None)],
)
def test_the_model_is_the_one_of_its_new_config(name: str, classes: int, pool: str | None):
    config = CONFIGS[name]
    params, images = random_params(config, 1), random_images(config, 2, 2)
    expected = config.replace(num_classes=classes, pool=pool or config.pool)
    ours = torch_model(config, params)
    ours.reset_classifier(classes, pool)  # type: ignore[arg-type]
    assert ours.config == expected
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float64}
    weights = {key: tensor.numpy() for key, tensor in ours.state_dict().items()}
    with torch.no_grad():
        actual = ours.eval()(torch.tensor(images)).numpy()
    np.testing.assert_allclose(actual, numpy_reference.forward(expected, weights, images), rtol=0, atol=1e-13)
    assert classes or actual.shape[1] == ours.num_features
    with jax.enable_x64(True):
        theirs = jax_model(config, params)
        theirs.reset_classifier(classes, pool, rngs=nnx.Rngs(1))  # type: ignore[arg-type]
        theirs.eval()
        assert (theirs.config, theirs.num_features) == (expected, ours.num_features)
        weights = from_flax({path: np.asarray(array) for path, array in get_params(theirs).items()})
        actual = np.asarray(theirs(nhwc(images)))
    np.testing.assert_allclose(actual, numpy_reference.forward(expected, weights, images), rtol=0, atol=1e-13)


def test_a_head_without_random_numbers_is_that_of_the_first_seed():
    heads = []
    for rngs in (None, nnx.Rngs(0), nnx.Rngs(1)):
        model = jax_model(CONFIGS["plain"], random_params(CONFIGS["plain"], 1), "float32")
        model.reset_classifier(3, rngs=rngs)
        heads.append(np.asarray(get_params(model)["head/kernel"]))
    np.testing.assert_array_equal(heads[0], heads[1])
    assert np.abs(heads[0] - heads[2]).max() > 1e-3


def test_attention_pooling_cannot_be_added_and_the_model_is_left_as_it_was():
    model = torch_model(CONFIGS["plain"], random_params(CONFIGS["plain"], 1))
    with pytest.raises(VitportError, match=r"create a new model with pool='map'"):
        model.reset_classifier(3, "map")
    assert model.config == CONFIGS["plain"]
