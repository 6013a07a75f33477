"""Each cause is planted and named; sound runs are accused of nothing.

The faults are planted in what PyTorch runs (tests/vit_parity/planting.py), never in the replay, so the replay that
explains them is the oracle of nothing but itself. Every single hypothesis is held to its name in test_hypotheses.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import conversion
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.small_configs import BASE, COMBINATIONS, CONFIGS
from tests.vit_parity.planting import (
    CONFIG,
    IMAGES,
    PARAMS,
    PREPROCESSING,
    WEIGHTS,
    ending,
    interleaved,
    linear_layers,
    options,
    parameters,
    reordered,
    seen,
    split,
    to_16_bits,
    without,
)
from tests.vit_parity.runs import random_batch, replayed_model, run_jax, run_torch
from vit_parity import Capture
from vit_parity.explain import Explanation, explain
from vit_parity.hypotheses import Origin

FAULTS: dict[str, tuple[Callable[[], Capture], str, str]] = {
    "eps-5": (options(norm_eps=1e-5), "embed", "uses epsilon 1e-05"),
    "eps-3": (options(norm_eps=1e-3), "embed", "uses epsilon 1e-03"),
    "tanh": (options(activation="gelu_tanh"), "blocks.0.mlp.act", "uses tanh GELU"),
    "quick": (options(activation="quick_gelu"), "blocks.0.mlp.act", "uses Quick GELU"),
    "relu": (options(activation="relu"), "blocks.0.mlp.act", "uses ReLU"),
    "scale": (
        options(qk_scale=24**-0.5),
        "blocks.0.attn.softmax",
        "divides the attention logits by the square root of the whole width",
    ),
    "no-scale": (options(qk_scale=1.0), "blocks.0.attn.softmax", "divides the attention logits by nothing"),
    "post-norm": (options(block="post_norm"), "blocks.0.norm1", "norms after attention and MLP, not before"),
    "original": (options(block="original"), "blocks.0.norm1", "normalises the sums after attention and MLP"),
    "mean": (options(pool="avg"), "pooled", "pools the mean of the patches"),
    "mean-of-all": (options(pool="avg", pool_prefix=True), "pooled", "pools the mean of all tokens"),
    "no-pre-norm": (without("norm_pre"), "embed", "leaves out the norm before the first block"),
    "no-final-norm": (without("norm"), "norm", "leaves out the norm norm"),
    "no-norm2": (without("blocks.0.norm2", "blocks.1.norm2"), "blocks.0.norm2", "leaves out the norm norm2"),
    "bgr": (seen(IMAGES[..., ::-1]), "patch_embed.proj", "reads the colours as BGR"),
    "half": (
        seen(((IMAGES * (0.2, 0.3, 0.4) + (0.4, 0.5, 0.6)) - 0.5) / 0.5),
        "patch_embed.proj",
        "is given mean and standard deviation 0.5",
    ),
    "turned": (seen(IMAGES.swapaxes(1, 2)), "patch_embed.proj", "swaps rows and columns of the image"),
    "kernel": (
        ending("patch_embed.proj.weight", lambda x: x.swapaxes(2, 3)),
        "patch_embed.proj",
        "swaps height and width of the patch kernel",
    ),
    "no-position": (ending("pos_embed", np.zeros_like), "tokens", "adds no position embedding"),
    "bare-class": (
        ending("pos_embed", lambda x: np.concatenate([0 * x[:, :1], x[:, 1:]], axis=1)),
        "tokens",
        "adds no position to the prefix tokens",
    ),
    "columns": (
        ending(
            "pos_embed",
            lambda x: np.concatenate(
                [x[:, :1], x[:, 1:].reshape(1, 3, 3, 24).swapaxes(1, 2).reshape(1, 9, 24)], axis=1
            ),
        ),
        "tokens",
        "numbers the patches column by column in the position table",
    ),
    "order": (ending(".qkv.weight", reordered("kqv")), "blocks.0.attn.qkv", ""),
    "order-with-bias": (
        parameters(lambda name, x: reordered("vkq")(x) if ".qkv." in name else x),
        "blocks.0.attn.qkv",
        "holds the weights of q, k, v in the order v, k, q",
    ),
    "interleaved": (
        parameters(lambda name, x: interleaved(x) if ".qkv." in name else x),
        "blocks.0.attn.qkv",
        "holds the weights of q, k, v head by head",
    ),
    "split-order": (
        split(lambda x: torch.cat([x[..., 24:48], x[..., :24], x[..., 48:]], dim=-1)),
        "blocks.0.attn.q",
        "takes q, k, v in the order k, q, v",
    ),
    "split-interleaved": (
        split(lambda x: x.reshape(2, 10, 3, 3, 8).transpose(2, 3).reshape(2, 10, 72)),
        "blocks.0.attn.q",
        "takes q, k, v head by head",
    ),
    "transposed": (ending("attn.proj.weight", lambda x: x.T), "blocks.0.attn.proj", "has attn.proj.weight transposed"),
    "reshaped": (
        ending("mlp.fc1.weight", lambda x: x.T.copy().reshape(x.shape)),
        "blocks.0.mlp.fc1",
        "reads mlp.fc1.weight as if it were transposed already",
    ),
    "fc2-bias": (ending("mlp.fc2.bias", np.zeros_like), "blocks.0.mlp.fc2", "drops mlp.fc2.bias"),
    "key-bias": (
        ending("attn.qkv.bias", lambda x: np.concatenate([x[:24], 0 * x[24:48], x[48:]])),
        "blocks.0.attn.qkv",
        "drops the bias of the keys",
    ),
    "head-bias": (ending("head.bias", np.zeros_like), "logits", "drops head.bias"),
    "bfloat16": (
        linear_layers(to_16_bits(torch.bfloat16)),
        "blocks.0.attn.qkv",
        "rounds the inputs of linear layers to bfloat16",
    ),
}
"""What is planted, the layer that must be named, the cause that must be."""


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name][2]])
def test_a_planted_fault_is_named_at_its_layer(name):
    """The gap closes to rounding: below 4e-6 from above 1e-5."""
    run, layer, cause = FAULTS[name]
    found = explain(run(), replayed_model(WEIGHTS, IMAGES), Origin(PREPROCESSING))
    assert found, "nothing was found"
    first = found[0]
    assert (first.run, first.layer) == ("B", layer)
    assert cause in (first.cause, *first.alternatives)
    assert first.after is not None
    assert first.after <= first.bound < first.before
    assert first.before > 4 * first.after
    assert len(found) == 1, [entry.sentence for entry in found]


def test_the_sentence_tells_cause_place_and_residuals():
    (found,) = explain(FAULTS["tanh"][0](), replayed_model(WEIGHTS, IMAGES))
    assert found.stages == ("blocks.0", "blocks.1")
    assert found.sentence.startswith("B uses tanh GELU (blocks.0 to blocks.1): ")
    assert found.sentence.endswith(" at blocks.0.mlp.act")
    assert " → " in found.sentence


def test_a_fault_that_no_hypothesis_meets_is_told_and_not_explained():
    """Half the queries' bias is tripled; every other layer is sound on its own inputs."""
    run = ending("blocks.1.attn.qkv.bias", lambda x: np.concatenate([3 * x[:12], x[12:]]))
    (found,) = explain(run(), replayed_model(WEIGHTS, IMAGES))
    assert (found.layer, found.cause, found.stages) == ("blocks.1.attn.qkv", None, ("blocks.1",))
    assert "no hypothesis fits" in found.sentence


def test_a_weight_permuted_without_its_bias_is_no_permutation():
    """The order of the weights' rows alone is changed: none of the causes brings the residual to rounding."""
    found = explain(FAULTS["order"][0](), replayed_model(WEIGHTS, IMAGES))
    assert [entry.cause for entry in found] == [None, None]


def test_two_faults_are_both_named():
    """tanh GELU, and the mean for the class token."""
    run = options(activation="gelu_tanh", pool="avg")
    causes = [entry.cause for entry in explain(run(), replayed_model(WEIGHTS, IMAGES))]
    assert causes == ["uses tanh GELU", "pools the mean of the patches"]


def test_a_fault_in_one_block_alone_is_told_of_that_block():
    """The second block is sound."""
    changed = dict(PARAMS) | {"blocks.0.mlp.fc1.bias": np.zeros_like(PARAMS["blocks.0.mlp.fc1.bias"])}
    (found,) = explain(run_torch(Checkpoint.of(CONFIG, changed), IMAGES), replayed_model(WEIGHTS, IMAGES))
    assert (found.cause, found.stages) == ("drops mlp.fc1.bias", ("blocks.0",))


def test_only_tokens_between_blocks_are_enough_to_name_a_cause():
    """As onnxruntime gives them: the whole block is replayed."""
    whole = FAULTS["tanh"][0]()
    sparse = {name: whole.activations[name] for name in ("embed", "blocks.0", "blocks.1", "norm")}
    (found,) = explain(replace(whole, activations=sparse), replayed_model(WEIGHTS, IMAGES))
    assert (found.layer, found.cause) == ("blocks.0", "uses tanh GELU")


@pytest.mark.parametrize("method", ["torch-bicubic", "torch-bilinear", "scipy-zoom", "dinov2", "torch-bicubic-corners"])
def test_the_wrong_resize_of_the_position_table_is_named(method):
    """The table of 3 x 3 patches brought to 5 x 4; the truth is the antialiased bicubic with a = -0.5."""
    right = conversion.prepare(None, weights=WEIGHTS, image_size=(20, 16))
    wrong = conversion.prepare(None, weights=WEIGHTS, image_size=(20, 16), resize=method)
    images = random_batch(right.config)
    found = explain(run_torch(wrong, images, title="B"), replayed_model(right, images), Origin(table=WEIGHTS))
    assert len(found) == 1
    assert found[0].layer == "tokens"
    assert f"resizes the position table by {method}" in (found[0].cause, *found[0].alternatives)


@pytest.mark.parametrize("name", ["swiglu", "swiglu-packed"])
def test_gate_and_value_swapped_are_named(name):
    config = CONFIGS[name]
    weights = Checkpoint.of(config, random_params(config, 4, np.float32))
    images = random_batch(config)
    x = dict(weights.params)
    if name == "swiglu":
        for leaf in ("weight", "bias"):
            gate, value = (f"blocks.0.mlp.fc1_{part}.{leaf}" for part in "gx")
            x[gate], x[value] = x[value], x[gate]
    else:
        x |= {at: np.roll(array, 41, axis=0) for at, array in x.items() if ".fc1." in at}
    (found,) = explain(run_torch(Checkpoint.of(config, x), images), replayed_model(weights, images))
    assert found.cause == "swaps gate and value of the MLP"


def test_rmsnorm_for_layernorm_is_named():
    """The same weights, the mean left in."""
    config = BASE.replace(norm_bias=False)
    weights = Checkpoint.of(config, random_params(config, 4, np.float32))
    wrong = Checkpoint.of(config.replace(norm="rmsnorm"), weights.params)
    images = random_batch(config)
    (found,) = explain(run_torch(wrong, images), replayed_model(weights, images))
    assert (found.layer, found.cause) == ("blocks.0.norm1", "norms without subtracting the mean")


def clean() -> list[tuple[str, int]]:
    return [(name, seed) for seed in range(20) for name in COMBINATIONS if seed < 10 or name in ("plain", "scaled")]


def test_a_hundred_random_sound_runs_are_accused_of_nothing():
    """Random weights and images over combinations of all options, float32; in PyTorch."""
    cases = clean()[:100]
    accused: list[Explanation] = []
    for name, seed in cases:
        config = COMBINATIONS[name]
        weights = Checkpoint.of(config, random_params(config, 100 + seed, np.float32))
        images = random_batch(config, batch=1, seed=seed)
        accused += explain(run_torch(weights, images), replayed_model(weights, images))
    assert len(cases) == 100
    assert not accused, [entry.sentence for entry in accused]


@pytest.mark.parametrize("name", ["scaled", "rms-distilled", "parallel"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sound_runs_in_jax_are_accused_of_nothing(name, dtype):
    config = COMBINATIONS[name]
    weights = Checkpoint.of(config, random_params(config, 7, np.float32))
    images = random_batch(config)
    assert explain(run_jax(weights, images, dtype), replayed_model(weights, images)) == ()
