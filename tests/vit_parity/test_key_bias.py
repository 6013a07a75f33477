"""A bias of the keys that is added where the model has none, planted in PyTorch, and pairs that hold none.

What is planted is drawn by numpy; the replay never sees it. That it is dropped is planted in test_explain.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import conversion
import vit_torch
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.small_configs import BASE
from tests.vit_parity.runs import random_batch, replayed_model, run_jax, run_torch
from vit_parity import Capture, capture_torch, compare
from vit_parity.endpoints import Endpoint
from vit_parity.explain import explain
from vit_parity.hypotheses import Origin
from vit_parity.runs import Side, with_joint_biases
from vit_spec import ViTConfig
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary

ADDED = "adds a bias to the keys, which have none"
DROPPED = "drops the bias of the keys"
JOINT = BASE.replace(image_size=(24, 12), register_tokens=2, pos_embed="none", rotary=DinoV3Rotary())
BESIDE = JOINT.replace(qkv_bias=False, qv_bias=True)
CONFIGS = {
    "joint": JOINT,
    "beside": BESIDE,
    "none": JOINT.replace(qkv_bias=False),
    "without positions": BASE,
    "table and turns": BASE.replace(qkv_bias=False, qv_bias=True, rotary=AxialRotary(reference_grid=(4, 4))),
    "parallel": BASE.replace(block="parallel"),
    "parallel, none": BASE.replace(block="parallel", qkv_bias=False),
    "branched": BASE.replace(block="branched"),
    "normed keys": BASE.replace(qk_norm=True),
}
KEYS = slice(-48, -24)


def without_key_biases(config: ViTConfig, seed: int = 4) -> Checkpoint:
    params = random_params(config, seed, np.float32)
    for name, x in params.items():
        if name.endswith(("qkv.bias", "in_proj.bias")):
            x[KEYS] = 0
    return Checkpoint.of(config, params)


def extra(seed: int = 5) -> np.ndarray:
    return np.float32(0.3) * np.random.default_rng(seed).standard_normal(24).astype(np.float32)


def added(weights: Checkpoint, count: int = 2) -> Capture:
    """The bias added to what the modules of the model return."""
    model = vit_torch.create_model(weights=weights).eval()
    for name, module in model.named_modules():
        if name.endswith(("attn.qkv", "in_proj")):
            padded = torch.zeros(len(module.get_parameter("weight")))
            padded[KEYS] = torch.tensor(extra())
            module.register_forward_hook(lambda _, __, y, padded=padded: y + padded)
    return capture_torch(model, random_batch(weights.config, count), "B")


def beside(weights: Checkpoint) -> Capture:
    """The same where the joint layer's output is not what is wrong: the bias comes with those of queries and values."""
    model = vit_torch.create_model(weights=weights).eval()
    for name, module in model.named_modules():
        if name.endswith("attn.k_norm"):
            module.register_forward_hook(lambda _, __, k: k + torch.tensor(extra()).reshape(3, 1, 8))
    return capture_torch(model, random_batch(weights.config), "B")


PLANTED: dict[str, tuple[str, Callable[[Checkpoint], Capture], str]] = {
    "joint": ("joint", added, "blocks.0.attn.qkv"),
    "beside": ("beside", beside, "blocks.0.attn.k"),
    "none": ("none", added, "blocks.0.attn.qkv"),
    "without positions": ("without positions", added, "blocks.0.attn.qkv"),
    "table and turns": ("table and turns", beside, "blocks.0.attn.k"),
    "parallel": ("parallel", added, "blocks.0.in_proj"),
    "parallel, none": ("parallel, none", added, "blocks.0.in_proj"),
    "branched": ("branched", added, "blocks.0.attns.0.attn.qkv"),
    "normed keys": ("normed keys", added, "blocks.0.attn.qkv"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_bias_of_the_keys_that_the_model_does_not_have_is_named(name: str) -> None:
    """The gap closes from 1e-2 at least to below 3e-7, which is rounding."""
    config, plant, layer = PLANTED[name]
    weights = without_key_biases(CONFIGS[config])
    run = plant(weights)
    (found,) = explain(run, replayed_model(weights, run.images))
    assert (found.layer, found.cause, found.stages) == (layer, ADDED, ("blocks.0", "blocks.1"))
    assert found.before > 1e-2
    assert found.after is not None and found.after < 3e-7


@pytest.mark.parametrize("name", ["joint", "beside", "none"])
def test_its_own_weights_name_it_where_only_tokens_are_known(name: str) -> None:
    """As of an ONNX file, whose run shows the tokens between its blocks."""
    weights = without_key_biases(CONFIGS[name])
    bias = np.concatenate([np.zeros(24), extra(), np.zeros(24)])
    given = {f"blocks.{i}.attn.qkv.bias": bias for i in range(2)}
    whole = added(weights)
    sparse = replace(whole, activations={at: whole.activations[at] for at in ("embed", "blocks.0", "blocks.1", "norm")})
    (found,) = explain(sparse, replayed_model(weights, whole.images), Origin(own=given))
    assert (found.layer, found.cause) == ("blocks.0", ADDED)
    assert [entry.cause for entry in explain(sparse, replayed_model(weights, whole.images))] == [None, None]


@pytest.mark.parametrize(
    ("name", "run"), [*((name, run_torch) for name in CONFIGS), pytest.param("beside", run_jax, marks=pytest.mark.slow)]
)
def test_sound_runs_are_accused_of_nothing(name: str, run: Callable[..., Capture]) -> None:
    weights = without_key_biases(CONFIGS[name], seed=7)
    images = random_batch(weights.config)
    assert explain(run(weights, images), replayed_model(weights, images)) == ()


def test_one_token_shows_any_fault_as_a_constant_and_is_not_enough() -> None:
    """The weights of the keys doubled: not a bias, though with one token a bias would explain it."""
    config = JOINT.replace(image_size=(4, 4), class_token=False, register_tokens=0, pool="avg", depth=1)
    weights = without_key_biases(config)
    doubled = weights.params["blocks.0.attn.qkv.weight"].copy()
    doubled[KEYS] *= 2
    wrong = Checkpoint.of(config, dict(weights.params) | {"blocks.0.attn.qkv.weight": doubled})
    images = random_batch(config, 1)
    found = explain(run_torch(wrong, images), replayed_model(weights, images))
    assert [entry.cause for entry in found] == [None]
    images = random_batch(config, 2)  # two images are two tokens, which a constant does not explain either
    found = explain(run_torch(wrong, images), replayed_model(weights, images))
    assert [entry.cause for entry in found] == [None]


def stated() -> dict[str, Checkpoint]:
    """One model three times: biases beside the joint layer, the same inside it, and with one of the keys."""
    source = without_key_biases(BESIDE)
    rest = {name: x for name, x in source.params.items() if not name.endswith("_bias")}

    def joint(keys: float) -> Checkpoint:
        biases = {
            f"blocks.{i}.attn.qkv.bias": np.concatenate(
                [source.params[f"blocks.{i}.attn.q_bias"], keys * extra(i), source.params[f"blocks.{i}.attn.v_bias"]]
            )
            for i in range(2)
        }
        return Checkpoint.of(JOINT, rest | biases)

    return {"beside": source, "inside": joint(0.0), "kept": joint(1.0)}


PAIRS = [
    ("beside", "inside", None),
    ("inside", "beside", None),
    ("beside", "kept", ADDED),
    ("inside", "kept", ADDED),
    ("kept", "beside", DROPPED),
    ("kept", "inside", DROPPED),
]


@pytest.mark.parametrize(("a", "b", "cause"), PAIRS)
def test_the_same_function_by_other_parameters_is_no_fault(a: str, b: str, cause: str | None) -> None:
    """DINOv3's authors, Hugging Face and timm state it in different ways."""
    sides = with_joint_biases([Side(Endpoint("torch", name), stated()[name]) for name in (a, b)])
    right, wrong = (side.checkpoint for side in sides)
    assert right is not None and wrong is not None
    run = run_torch(wrong, random_batch(JOINT), title="B")
    found = explain(run, replayed_model(right, run.images), Origin(own=wrong.params))
    assert [(told.layer, told.cause) for told in found] == ([("blocks.0.attn.qkv", cause)] if cause else [])


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b", "cause"), PAIRS)
def test_files_are_told_apart_by_the_keys_alone(tmp_path: Path, a: str, b: str, cause: str | None) -> None:
    """By the command's own function, with gradients: those of the keys' bias are rounding alone without one."""
    for name in (a, b):
        conversion.save(stated()[name], tmp_path / name, format="flax")
    found = compare(tmp_path / a, tmp_path / b, explain=True, gradients=True)
    assert [told.cause for told in found.explanations or ()] == ([cause] if cause else [])
    assert (found.comparison.first_divergence is None) == (cause is None)
    assert found.gradients
    same = [row.difference.relative < 1e-5 for row in found.gradients if not row.name.endswith("qkv.bias")]
    assert all(same) == (cause is None)
