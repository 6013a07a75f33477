"""Two hundred random faults, each in one place, are all located at their own layer.

The oracle is where the fault was put. Faults are in single elements, rows or whole tensors of any parameter of either
framework, or in one option; sizes run from a hundredth of the parameter's own spread to ten times it.
"""

from __future__ import annotations

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import vit_jax
import vit_torch
from conversion import Checkpoint, to_flax
from tests.random_weights import random_params
from tests.small_configs import BASE
from tests.vit_parity.runs import checkpoint, random_batch, run_jax, run_torch
from vit_jax import set_params
from vit_parity import Capture, capture_torch, compare_captures
from vit_parity.capture import jax_capturer
from vit_parity.comparison import Comparison
from vit_parity.replay import ReplayedModel, float64_params
from vit_parity.truth import truth_of
from vit_spec import ViTConfig, parameters

CONFIGS = {
    "many": BASE.replace(
        depth=3, pre_norm=True, qk_norm=True, layer_scale=1.0, register_tokens=2, pos_embed="all", mlp="swiglu",
        activation="silu", mlp_norm=True, attn_norm=True, patch_norm=True, representation_size=11,
    ),
    "plain": BASE.replace(depth=3, norm_eps=1e-4),
}  # fmt: skip
PARAMETER_FAULTS = 90
"""For each of the two frameworks; with the options they are 200 and more."""


class World:
    """A sound model, the truth of it, and both frameworks ready to run it with a fault."""

    def __init__(self, config: ViTConfig) -> None:
        self.config, self.weights, self.images = config, checkpoint(config, seed=9), random_batch(config, batch=1)
        self.truth = truth_of(self.weights, self.images)
        self.sound = run_torch(self.weights, self.images)
        self.model = ReplayedModel(config, float64_params(self.weights.params), self.images)
        self.torch_model = vit_torch.create_model(weights=self.weights).eval()
        self.jax_model = vit_jax.create_model(weights=self.weights)
        self.jax_model.eval()
        self.jax_run = jax_capturer(self.jax_model)

    def torch(self, name: str, array: np.ndarray) -> Capture:
        """PyTorch with one parameter exchanged."""
        parameter = dict(self.torch_model.named_parameters())[name]
        before = parameter.data
        parameter.data = torch.tensor(array)
        found = capture_torch(self.torch_model, self.images)
        parameter.data = before
        return found

    def jax(self, name: str, array: np.ndarray) -> Capture:
        """JAX with one parameter exchanged; compiled once for all."""
        set_params(self.jax_model, to_flax(dict(self.weights.params) | {name: array}))
        found = self.jax_run(nnx.state(self.jax_model), jnp.asarray(self.images))
        arrays = {at: np.asarray(found[at]) for at in self.sound.activations}
        return Capture("jax", arrays, self.images)

    def compare(self, faulty: Capture, *, first: bool) -> Comparison:
        pair = (faulty, self.sound) if first else (self.sound, faulty)
        return compare_captures(*pair, truth=self.truth, model=self.model)


def layer_of(parameter: str, config: ViTConfig) -> str:
    """The first activation that a parameter has a part in, written down by hand."""
    fixed = {
        "norm_pre": "embed",
        "pre_logits.fc": "pre_logits",
        "head": "logits",
    }
    module = parameter.rpartition(".")[0]
    if parameter in ("cls_token", "reg_token", "pos_embed"):
        return "tokens" if config.pre_norm else "embed"
    if module in fixed:
        return fixed[module]
    return re.sub(r"attn\.([qk])_norm$", r"attn.\1", module)


def fault(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One element, one row, or all of it moved."""
    size = 10.0 ** rng.uniform(-2, 1) * (array.std() + 0.1)
    out = array.copy()
    kind = rng.integers(3)
    if kind == 0:
        flat = rng.integers(array.size)
        out.reshape(-1)[flat] += np.float32(size * rng.choice([-1, 1]))
    elif kind == 1:
        row = rng.integers(array.shape[-1])
        out[..., row] += (size * rng.standard_normal(array.shape[:-1])).astype(np.float32)
    else:
        out += (size * rng.standard_normal(array.shape)).astype(np.float32)
    return out


@pytest.fixture(scope="module", params=list(CONFIGS))
def world(request) -> World:
    return World(CONFIGS[request.param])


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_fault_in_any_parameter_is_located_at_its_layer(world, framework):
    """Random parameters, none twice before each had its turn; the run with the fault is blamed on either side."""
    rng = np.random.default_rng(0 if framework == "torch" else 1)
    names = [parameter.name for parameter in parameters(world.config)]
    chosen = [*rng.permutation(names), *rng.choice(names, PARAMETER_FAULTS)][: PARAMETER_FAULTS // 2]
    for at, name in enumerate(chosen):
        first = bool(at % 2)
        faulty = getattr(world, framework)(name, fault(world.weights.params[name], rng))
        row = world.compare(faulty, first=first).first_divergence
        assert row is not None, name
        assert (row.name, row.verdict) == (layer_of(name, world.config), "a" if first else "b"), name


OPTIONS = {
    "activation": ({"activation": "gelu_tanh"}, "blocks.0.mlp.act"),
    "quick": ({"activation": "quick_gelu"}, "blocks.0.mlp.act"),
    "relu": ({"activation": "relu"}, "blocks.0.mlp.act"),
    "silu": ({"activation": "silu"}, "blocks.0.mlp.act"),
    "eps": ({"norm_eps": 1e-5}, "blocks.0.norm1"),
    "eps-3": ({"norm_eps": 1e-3}, "blocks.0.norm1"),
    "scale": ({"qk_scale": 0.3}, "blocks.0.attn.softmax"),
    "scale-1": ({"qk_scale": 0.36}, "blocks.0.attn.softmax"),
    "pool": ({"pool": "avg"}, "pooled"),
    "pool-all": ({"pool": "avg", "pool_prefix": True}, "pooled"),
}


@pytest.mark.parametrize("run", [run_torch, run_jax])
@pytest.mark.parametrize("option", OPTIONS)
def test_a_fault_in_any_option_is_located_at_its_layer(option, run):
    """Ten options in two frameworks."""
    changes, layer = OPTIONS[option]
    config = CONFIGS["plain"].replace(depth=1)
    params = random_params(config, 9, np.float32)
    images = random_batch(config, batch=1)
    sound = run_torch(Checkpoint.of(config, params), images)
    faulty = run(Checkpoint.of(config.replace(**changes), params), images)
    row = compare_captures(sound, faulty).first_divergence
    assert row is not None
    assert row.name == layer


def test_there_are_two_hundred_faults():
    assert 2 * 2 * (PARAMETER_FAULTS // 2) + 2 * len(OPTIONS) >= 200


def test_a_sound_run_of_the_same_models_has_no_fault(world):
    """So that what is located above is the fault."""
    assert jax.default_backend() == "cpu"
    found = run_jax(world.weights, world.images)
    assert world.compare(replace(found, title="jax"), first=False).first_divergence is None
