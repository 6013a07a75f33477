"""Pairs of random configs with random weights, through both models and the converter."""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

import conversion
from conversion import FORMATS, Checkpoint
from tests.conversion.canaries import assert_same_tensors
from tests.random_configs import vit_configs
from tests.random_weights import random_images, random_params
from tests.vit_jax.models import jax_model, nhwc, quick_jit
from tests.vit_torch.models import torch_model
from vit_spec import ViTConfig, VitportError
from vit_spec.vit.config import FIELDS

# As in test_parity.py: 2e-15 is expected of outputs of order 1. Measured over 200 pairs, whose values reach 9: 5.5e-15
# of the largest output.
TOLERANCE = 1e-12
ORBAX = "flax"
"""Slow to write; test_orbax_folder.py holds it."""


def answers(config: ViTConfig, params: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Final tokens and head of both models, joined to one vector an image: (B, X) from PyTorch, then from JAX."""
    images = random_images(config, 2, seed=3)
    model = torch_model(config, params).eval()
    with torch.no_grad():
        tokens = model.forward_features(torch.tensor(images))
        ours = np.concatenate([tokens.flatten(1).numpy(), np.asarray(model.forward_head(tokens))], axis=1)
    with jax.enable_x64(True):
        twin = jax_model(config, params)
        twin.eval()
        graphdef, state = nnx.split(twin)

        def both(state: nnx.State, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            twin = nnx.merge(graphdef, state)
            tokens = twin.forward_features(x)
            return tokens.reshape(len(x), -1), twin.forward_head(tokens)

        theirs = np.concatenate([np.asarray(part) for part in quick_jit(both)(state, nhwc(images))], axis=1)
    return ours, theirs


def check_pair(pair: tuple[ViTConfig, ViTConfig], data: st.DataObject) -> None:
    first, second = pair
    params = [one_bias(config, random_params(config, seed=5 + at)) for at, config in enumerate(pair)]
    for config, weights in zip(pair, params, strict=True):
        ours, theirs = answers(config, weights)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=TOLERANCE * max(1.0, np.abs(ours).max()))
    with tempfile.TemporaryDirectory() as folder:
        for at, (config, weights) in enumerate(zip(pair, params, strict=True)):
            holders = [
                name
                for name, entry in FORMATS.items()
                if entry.family == config.family
                and entry.can_write
                and name != ORBAX
                and not entry.cannot_hold(config)
                and entry.computed is None
            ]
            name = data.draw(st.sampled_from(holders))
            path = Path(folder) / f"{at}"
            conversion.save(Checkpoint.of(config, weights), path, format=name, activation="keep")
            loaded = conversion.load(path, model=config)
            assert_same_tensors(loaded.params, weights)
            assert computed(loaded.config) == computed(config)
        # timm's names hold every model, with a record of the config beside the weights: another config given for them
        # is refused or overruled, never believed.
        path = Path(folder) / "recorded"
        conversion.save(Checkpoint.of(first, params[0]), path, format="timm")
        try:
            loaded = conversion.load(path, model=second)
        except VitportError:
            return
        assert loaded.config == first


def one_bias(config: ViTConfig, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """timm has one bias for both parts of a parallel block with differential attention; it is read as the first's."""
    if not config.differential or config.block != "parallel":
        return weights
    zeros = {name: np.zeros_like(array) for name, array in weights.items() if name.endswith("mlp_out_proj.bias")}
    return weights | zeros


def computed(config: ViTConfig) -> dict:
    """What changes an output in evaluation mode. A file need not tell the rest (initial values, rates of dropout, how a
    table would be resized), nor which of two spellings a width had."""
    training = {"drop_rate", "attn_drop_rate", "drop_path_rate", "layer_scale", "pos_embed_resize"}
    values = {name: value for name, value in config.to_dict().items() if name not in training}
    return values | {"mlp_ratio": None, "mlp_hidden_dim": config.hidden_dim, "layer_scale": config.layer_scale is None}


SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(SETTINGS, max_examples=16)
@given(pair=st.tuples(vit_configs(), vit_configs()), data=st.data())
def test_random_pairs_agree_in_both_frameworks_and_survive_conversion(
    pair: tuple[ViTConfig, ViTConfig], data: st.DataObject
) -> None:
    """Oracle: the other framework; the weights that went in, bit for bit."""
    check_pair(pair, data)


@pytest.mark.slow
@settings(SETTINGS, max_examples=200)
@given(pair=st.tuples(vit_configs(), vit_configs()), data=st.data())
def test_many_random_pairs_agree_in_both_frameworks_and_survive_conversion(
    pair: tuple[ViTConfig, ViTConfig], data: st.DataObject
) -> None:
    check_pair(pair, data)


def test_every_field_is_drawn() -> None:
    """Each field differs from its default in some drawn config: a new option that the strategy forgets fails here."""
    plain = ViTConfig()
    at_once = settings(SETTINGS, phases=[Phase.generate], derandomize=True, max_examples=2000)  # none is made simpler
    for field in FIELDS:
        find(
            vit_configs(),
            lambda config, field=field: getattr(config, field) != getattr(plain, field),
            settings=at_once,
        )
