"""The commands that measure, train and draw, on a small DINOv3. Oracles: float64, transformers' attention weights, and
the run that nobody disturbed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import conversion
import vit_jax
from tests.cross.transformers_folders import randomize
from tests.random_weights import random_params
from tests.vit_cli.training import same_bits, weights
from vit_cli.main import main
from vit_parity import capture_jax
from vit_parity.rollout import rollout
from vit_parity.sweep import Case, sweep
from vit_spec import Preprocessing, ViTConfig
from vit_spec.vit.rotary import DinoV3Rotary

SMALL = ViTConfig(
    image_size=(8, 12), patch_size=4, in_channels=1, num_classes=3, embed_dim=16, depth=2, num_heads=2,
    mlp="swiglu", activation="silu", mlp_hidden_dim=24, register_tokens=2, pos_embed="none", rotary=DinoV3Rotary(),
    qkv_bias=False, qv_bias=True, layer_scale=0.1,
)  # fmt: skip


def written(folder: Path, **changes: Any) -> Path:
    config = SMALL.replace(**changes)
    preprocessing = Preprocessing(size=config.image_size, mean=(0.5,), std=(0.5,), crop_fraction=1.0)
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 3, np.float32), preprocessing)
    conversion.save(checkpoint, folder / "dinov3.safetensors", format="timm")
    return folder / "dinov3.safetensors"


@pytest.mark.slow
def test_steps_of_both_frameworks_stay_together_in_float64(vitport: Callable[..., Any], tmp_path: Path) -> None:
    """As far as any ViT's: 1e-10 after two steps."""
    options = ("--dtypes", "float64", "--count", "2", "--batch", "2", "--fail-above", "1e-10", "--json")
    result = vitport("steps", written(tmp_path), *options)
    assert result.code == 0, result.err
    for run in json.loads(result.out)["runs"]:
        assert 0 < max(step["distance"] for step in run["steps"]) <= 1e-10


def test_a_sweep_finds_rounding_alone(tmp_path: Path) -> None:
    """2e-6 is some 16 unit roundoffs of float32, as in tests/vit_parity/test_sweep.py."""
    checkpoint = conversion.load(written(tmp_path))
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 1)).astype(np.float32)
    for result in sweep(checkpoint, images, [Case("torch"), Case("torch", attention="fused"), Case("jax")]):
        assert result.error is not None
        assert 0 < result.error < 2e-6
        assert result.repeats


@pytest.mark.slow
def test_it_is_fine_tuned_evaluated_and_goes_on_with_the_same_bits(tmp_path: Path, vitport: Callable[..., Any]) -> None:
    """By the preset of its authors' head: class token and mean of the patches."""
    pytest.importorskip("sklearn")
    given, run, again = written(tmp_path, image_size=(8, 8), num_classes=0), tmp_path / "run", tmp_path / "again"
    options = ("--preset", "dinov3_finetune", "--model.weights", str(given), "--data", "digits", "--epochs", "None",
               "--steps", "4", "--keep.every", "2", "--log-every", "1")  # fmt: skip
    assert main(["train", "--workdir", str(run), *options]) == 0
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints" / "4")
    assert main(["train", "--workdir", str(again)]) == 0
    assert same_bits(weights(run), weights(again))
    trained = conversion.load(run)
    assert isinstance(trained.config, ViTConfig)
    assert (trained.config.pool, trained.config.rotary) == ("token_avg", DinoV3Rotary())
    assert trained.params["head.weight"].shape == (10, 32)
    found = vitport("evaluate", run, "--data", "digits", "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["images"] == 360


def test_rollout_is_that_of_transformers_attention_weights(tmp_path: Path) -> None:
    """Prefix tokens are not turned, patches are; on an image that is not square."""
    config = transformers.DINOv3ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, patch_size=4,
        num_register_tokens=2, image_size=8, attn_implementation="eager",
    )  # fmt: skip
    theirs = randomize(transformers.DINOv3ViTModel(config))
    theirs.save_pretrained(tmp_path / "model")
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)
    with torch.no_grad():
        found = theirs(torch.from_numpy(images).permute(0, 3, 1, 2), output_attentions=True)
    joint = np.eye(9)
    for attention in found.attentions:
        joint = (0.5 * attention.numpy().astype(np.float64).mean(axis=1) + 0.5 * np.eye(9)) @ joint
    expected = joint[:, 0, 3:].reshape(2, 2, 3)
    model = vit_jax.create_model(weights=tmp_path / "model", image_size=(8, 12))
    model.eval()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(rollout(capture_jax(model, images), model.config), expected, atol=1e-6)
