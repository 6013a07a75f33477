"""Every hypothesis by its name: what it says is planted in PyTorch, and it must be what is said of the run.

``test_explain.py`` holds what an explanation is; the faults here are the rest of what docs/comparing.md lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import permutations
from typing import Any, get_args

import numpy as np
import pytest
import torch

import conversion
import vit_torch
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.small_configs import BASE, CONFIGS
from tests.vit_parity.planting import (
    CONFIG,
    IMAGES,
    PARAMS,
    PREPROCESSING,
    WEIGHTS,
    Rounding,
    as_it_is,
    attention,
    ending,
    linear_layers,
    seen,
    to_16_bits,
    to_tf32,
)
from tests.vit_parity.runs import random_batch, replayed_model, run_torch
from vit_parity import Capture, capture_torch
from vit_parity.explain import Explanation, explain
from vit_parity.hypotheses import Origin
from vit_parity.hypotheses.common import EPSILONS, NORMALISATIONS
from vit_spec import ViTConfig
from vit_spec.vit.config import Activation, PositionResize

MEAN, STD = np.array(PREPROCESSING.mean), np.array(PREPROCESSING.std)


def pairs(choices: Iterable[Any]) -> list[tuple[Any, Any]]:
    """What is right, and what is run in its place."""
    return list(permutations(choices, 2))


def the_one(run: Capture, weights: Checkpoint = WEIGHTS, origin: Origin | None = None) -> Explanation:
    """The only cause, with the gap closed to what rounding may do."""
    found = explain(run, replayed_model(weights, run.images), origin)
    assert len(found) == 1, [entry.sentence for entry in found]
    assert found[0].after is not None, found[0].sentence
    assert found[0].after <= found[0].bound < found[0].before / 4
    return found[0]


def planted(right: ViTConfig, seed: int = 4, **changes: object) -> tuple[Checkpoint, Capture]:
    """Sound weights, and a run of them under another config."""
    weights = Checkpoint.of(right, random_params(right, seed, np.float32))
    wrong = replace(weights, config=right.replace(**changes))
    return weights, run_torch(wrong, random_batch(right), title="B")


@pytest.mark.parametrize(("right", "wrong"), pairs(EPSILONS))
def test_an_epsilon_is_named(right, wrong):
    """On tokens of order 0.01, where 1e-6 beside 1e-12 is seen in float32."""
    config = BASE.replace(norm_eps=right)
    params = random_params(config, 4, np.float32)
    for name in params:
        if name.startswith(("patch_embed", "pos_embed", "cls_token")):
            params[name] *= np.float32(0.01)
    weights = Checkpoint.of(config, params)
    run = run_torch(replace(weights, config=config.replace(norm_eps=wrong)), random_batch(config), title="B")
    found = the_one(run, weights)
    assert (found.layer, found.cause) == ("blocks.0.norm1", f"uses epsilon {wrong:.0e}")


NAMES = {"gelu": "erf GELU", "gelu_tanh": "tanh GELU", "quick_gelu": "Quick GELU", "silu": "SiLU", "relu": "ReLU"}


@pytest.mark.parametrize(("right", "wrong"), pairs(get_args(Activation)))
def test_an_activation_is_named(right, wrong):
    weights, run = planted(BASE.replace(depth=1, activation=right), activation=wrong)
    found = the_one(run, weights)
    assert (found.layer, found.cause) == ("blocks.0.mlp.act", f"uses {NAMES[wrong]}")


@pytest.mark.parametrize("order", ["qvk", "kqv", "kvq", "vqk", "vkq"])
def test_every_order_of_queries_keys_and_values_is_named(order):
    """Of the weights' rows, biases with them."""
    blocks = {name: np.split(x, 3) for name, x in PARAMS.items() if ".qkv." in name}
    changed = {name: np.concatenate([parts["qkv".index(part)] for part in order]) for name, parts in blocks.items()}
    run = run_torch(Checkpoint.of(CONFIG, PARAMS | changed), IMAGES, title="B")
    assert the_one(run).cause == f"holds the weights of q, k, v in the order {', '.join(order)}"


@pytest.mark.parametrize(
    ("scale", "name"),
    [(24**-0.5, "the square root of the whole width"), (1 / 8, "the head width"), (1.0, "nothing")],
)
def test_a_scale_is_named(scale, name):
    weights, run = planted(CONFIG, qk_scale=scale)
    assert the_one(run, weights).cause == f"divides the attention logits by {name}"


def test_the_usual_scale_is_named_where_the_model_has_another():
    weights, run = planted(BASE.replace(depth=1, qk_scale=0.6), qk_scale=None)
    assert the_one(run, weights).cause == "divides the attention logits by the square root of the head width"


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_mean_and_deviation_of_the_image_are_named(name):
    mean, std = NORMALISATIONS[name]
    images = ((IMAGES * STD + MEAN) - np.array(mean)) / np.array(std)
    found = the_one(seen(images)(), origin=Origin(PREPROCESSING))
    assert (found.layer, found.cause) == ("patch_embed.proj", f"is given {name}")


ENLARGING_ALIKE = {"torch-bilinear", "torch-bilinear-antialias"}


@pytest.mark.parametrize(
    ("right", "wrong"), [it for it in pairs(get_args(PositionResize)) if set(it) != ENLARGING_ALIKE]
)
def test_every_resize_of_the_position_table_is_named(right, wrong):
    """The table of 3 x 3 patches brought to 5 x 4, where antialiasing does nothing."""
    source = Checkpoint.of(CONFIG.replace(pos_embed_resize=right), PARAMS)
    sound = conversion.prepare(None, weights=source, image_size=(20, 16))
    faulty = conversion.prepare(None, weights=source, image_size=(20, 16), resize=wrong)
    run = run_torch(faulty, random_batch(sound.config), title="B")
    found = the_one(run, sound, Origin(table=source))
    assert found.layer == "tokens"
    assert f"resizes the position table by {wrong}" in (found.cause, *found.alternatives)
    alike = {found.cause, *found.alternatives} == {f"resizes the position table by {it}" for it in ENLARGING_ALIKE}
    assert alike == (wrong in ENLARGING_ALIKE) == bool(found.alternatives)


def skipping(config: ViTConfig, ends: str) -> tuple[Checkpoint, Capture]:
    """The module of every block, or of the model, replaced by the identity."""
    weights = Checkpoint.of(config, random_params(config, 4, np.float32))
    model = vit_torch.create_model(weights=weights).eval()
    for name in [name for name, _ in model.named_modules() if name == ends or name.endswith(f".{ends}")]:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, torch.nn.Identity())
    return weights, capture_torch(model, random_batch(config), "B")


@pytest.mark.parametrize(
    ("model", "end", "layer", "cause"),
    [
        ("plain", "norm1", "blocks.0.norm1", "leaves out the norm norm1"),
        ("plain", "norm2", "blocks.0.norm2", "leaves out the norm norm2"),
        ("plain", "norm", "norm", "leaves out the norm norm"),
        ("pre-norm", "norm_pre", "embed", "leaves out the norm before the first block"),
        ("average", "fc_norm", "fc_norm", "leaves out the norm fc_norm"),
        ("qk-norm", "q_norm", "blocks.0.attn.q", "leaves out the norm attn.q_norm"),
        ("patch-norm", "patch_embed.norm", "patch_embed.norm", "leaves out the norm patch_embed.norm"),
        ("swiglu-norm", "mlp.norm", "blocks.0.mlp.norm", "leaves out the norm mlp.norm"),  # EVA-02's sub-LN
        ("attn-norm", "attn.norm", "blocks.0.attn.norm", "leaves out the norm attn.norm"),
        ("attention-scale", "ls1", "blocks.0.ls1", "leaves out the layer scale ls1"),
        ("layer-scale", "ls2", "blocks.0.ls2", "leaves out the layer scale ls2"),
    ],
)
def test_a_norm_or_layer_scale_that_is_missing_is_named(model, end, layer, cause):
    weights, run = skipping(CONFIGS[model], end)
    found = the_one(run, weights)
    assert (found.layer, found.cause) == (layer, cause)


ORDERS = {
    "norms before attention and MLP, not after": {"block": "sequential"},
    "norms after attention and MLP, not before": {"block": "post_norm"},
    "normalises the sums after attention and MLP": {"block": "original"},
}


@pytest.mark.parametrize(("right", "wrong"), pairs(ORDERS))
def test_the_place_of_the_norms_is_named(right, wrong):
    weights, run = planted(BASE.replace(**ORDERS[right]), **ORDERS[wrong])
    assert the_one(run, weights).cause == wrong


def test_a_mean_that_is_subtracted_is_named():
    """LayerNorm in place of RMSNorm."""
    weights, run = planted(BASE.replace(norm="rmsnorm", norm_bias=False), norm="layernorm")
    assert the_one(run, weights).cause == "subtracts the mean in its norms"


POOLS = {
    "pools the class token": {"pool": "token"},
    "pools the mean of the patches": {"pool": "avg"},
    "pools the mean of all tokens": {"pool": "avg", "pool_prefix": True},
}


@pytest.mark.parametrize(("right", "wrong"), pairs(POOLS))
def test_a_pooling_is_named(right, wrong):
    weights, run = planted(BASE.replace(depth=1, **POOLS[right]), **({"pool_prefix": False} | POOLS[wrong]))
    found = the_one(run, weights)
    assert (found.layer, found.cause) == ("pooled", wrong)


def test_a_missing_tanh_of_pre_logits_is_named():
    config = CONFIGS["pre-logits"]
    weights = Checkpoint.of(config, random_params(config, 4, np.float32))
    model = vit_torch.create_model(weights=weights).eval()
    model.pre_logits = model.get_submodule("pre_logits.fc")
    found = the_one(capture_torch(model, random_batch(config), "B"), weights)
    assert (found.layer, found.cause) == ("pre_logits", "leaves out the tanh of pre_logits")


@pytest.mark.parametrize(
    ("end", "layer"),
    [
        ("patch_embed.proj.bias", "patch_embed.proj"),
        ("norm_pre.bias", "embed"),
        ("norm1.bias", "blocks.0.norm1"),
        ("attn.qkv.bias", "blocks.0.attn.qkv"),
        ("attn.proj.bias", "blocks.0.attn.proj"),
        ("norm2.bias", "blocks.0.norm2"),
        ("mlp.fc1.bias", "blocks.0.mlp.fc1"),
        ("mlp.fc2.bias", "blocks.0.mlp.fc2"),
        ("head.bias", "logits"),
    ],
)
def test_every_dropped_bias_is_named(end, layer):
    found = the_one(ending(end, np.zeros_like)())
    assert (found.layer, found.cause) == (layer, f"drops {end}")


@pytest.mark.parametrize(
    ("end", "layer"),
    [("attn.qkv.weight", "blocks.0.attn.qkv"), ("attn.proj.weight", "blocks.0.attn.proj"),
     ("mlp.fc1.weight", "blocks.0.mlp.fc1")],
)  # fmt: skip
def test_every_transposed_weight_is_named(end, layer):
    """A matrix whose height is a multiple of its width square by square: as each of q, k, v would be."""
    turned = ending(end, lambda x: np.concatenate([square.T for square in x.reshape(-1, 24, 24)]))
    found = the_one(turned())
    assert found.layer == layer
    assert f"has {end} transposed" in (found.cause, *found.alternatives)  # of a single square it is the next test too


@pytest.mark.parametrize("end", ["attn.qkv.weight", "mlp.fc1.weight", "mlp.fc2.weight", "head.weight"])
def test_a_weight_read_as_if_it_were_transposed_is_named(end):
    """(in, out) in memory taken for (out, in)."""
    found = the_one(ending(end, lambda x: x.T.copy().reshape(x.shape))())
    assert found.cause == f"reads {end} as if it were transposed already"


BFLOAT16, FLOAT16 = to_16_bits(torch.bfloat16), to_16_bits(torch.float16)
PRECISIONS: dict[str, tuple[Callable[[Rounding, Rounding], Callable[[], Capture]], Rounding, Rounding]] = {}
for _place, _plant in {"linear layers": linear_layers, "attention's products": attention}.items():
    PRECISIONS[f"rounds the inputs of {_place} to TensorFloat-32"] = (_plant, to_tf32, as_it_is)
    for _name, _rounded in {"bfloat16": BFLOAT16, "float16": FLOAT16}.items():
        PRECISIONS[f"rounds the inputs of {_place} to {_name}"] = (_plant, _rounded, as_it_is)
        PRECISIONS[f"rounds the results of {_place} to {_name}"] = (_plant, as_it_is, _rounded)


@pytest.mark.parametrize("cause", PRECISIONS)
def test_products_of_lower_precision_are_named(cause):
    """No accelerator is needed: what it does to numbers is done to them in torch, and the sum is float32's."""
    plant, read, stored = PRECISIONS[cause]
    found = the_one(plant(read, stored)())
    assert cause in (found.cause, *found.alternatives)


@pytest.mark.parametrize(("name", "rounded"), [("bfloat16", BFLOAT16), ("float16", FLOAT16)])
def test_products_computed_in_16_bits_are_named(name, rounded):
    """Inputs, biases and results are rounded."""
    found = the_one(linear_layers(rounded, rounded, bias=True)())
    assert f"computes linear layers in {name}" in (found.cause, *found.alternatives)
    found = the_one(attention(rounded, rounded)())
    assert f"computes attention's products in {name}" in (found.cause, *found.alternatives)


def test_torch_s_own_autocast_is_named():
    """Oracle: torch.autocast on the CPU. Where its kernels round the same numbers the residual is zero."""
    model = vit_torch.create_model(weights=WEIGHTS).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run = capture_torch(model, IMAGES, "B")
    wide = {name: array.astype(np.float32) for name, array in run.activations.items()}
    first, *_ = explain(replace(run, activations=wide), replayed_model(WEIGHTS, IMAGES))
    assert (first.layer, first.cause) == ("patch_embed.proj", "computes linear layers in bfloat16")
    assert first.before > 1e-3 > 1e-6 > (first.after or 0)


def test_what_plants_the_faults_plants_nothing_by_itself():
    for run in (linear_layers(as_it_is), attention(as_it_is), seen(IMAGES), ending("bias", np.copy)):
        assert explain(run(), replayed_model(WEIGHTS, IMAGES)) == ()
