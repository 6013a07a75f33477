"""What measures, trains and draws, for a small model of every kind of positions and blocks. Oracles: float64, the run
that nobody disturbed, and attention weights recorded in PyTorch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conversion
import vit_jax
import vit_torch
from tests.random_weights import random_params
from tests.vit_cli.training import same_bits, weights
from vit_cli.main import main
from vit_parity import capture_jax, capture_torch
from vit_parity.rollout import rollout
from vit_parity.sweep import Case, sweep
from vit_spec import Preprocessing, ViTConfig
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary

pytestmark = pytest.mark.slow

BASE = ViTConfig(
    image_size=(8, 12), patch_size=4, in_channels=1, num_classes=10, embed_dim=16, depth=2, num_heads=2,
    mlp_hidden_dim=24, layer_scale=0.1,
)  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "eva02": {
        "rotary": AxialRotary(reference_grid=(16, 16)), "mlp": "swiglu", "activation": "silu", "mlp_norm": True,
        "attn_norm": True, "qkv_bias": False, "qv_bias": True,
    },
    "pe": {
        "rotary": AxialRotary(order="wh", offset=1.0), "pre_norm": True, "patch_bias": False, "pool": "map",
        "pool_prefix": True, "map_heads": 4,
    },
    "rope-vit": {"rotary": MixedRotary(), "pos_embed": "patch"},
    "beit": {"relative_bias": True, "qkv_bias": False, "qv_bias": True, "pos_embed": "none"},
    "relpos": {"relative_hidden_dim": 6, "pos_embed": "none"},
    "sapiens2": {
        "rotary": DinoV3Rotary(), "pos_embed": "none", "register_tokens": 2, "scale_attention_only": True,
        "qk_norm": True, "norm": "rmsnorm", "norm_bias": False, "mlp": "swiglu_packed", "activation": "silu",
    },
    "differential": {"differential": True},
    "branched": {"block": "branched"},
    "original": {"block": "original", "layer_scale": None},
}  # fmt: skip


def written(folder: Path, name: str, **changes: Any) -> Path:
    config = BASE.replace(**FAMILIES[name], **changes)
    preprocessing = Preprocessing(size=config.image_size, mean=(0.5,), std=(0.5,), crop_fraction=1.0)
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 3, np.float32), preprocessing)
    conversion.save(checkpoint, folder / name, format="flax")
    return folder / name


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_of_both_frameworks_stay_together_in_float64(
    name: str, vitport: Callable[..., Any], tmp_path: Path
) -> None:
    """Measured 9.6e-13 with AdamW, which divides gradients by their size, and 2.4e-17 with SGD."""
    options = ("--dtypes", "float64", "--count", "2", "--batch", "2", "--fail-above", "1e-10", "--json")
    result = vitport("steps", written(tmp_path, name), *options)
    assert result.code == 0, result.err


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sweep_finds_rounding_alone(name: str, tmp_path: Path) -> None:
    """2e-6 is some 16 unit roundoffs of float32, as in tests/vit_parity/test_sweep.py."""
    checkpoint = conversion.load(written(tmp_path, name))
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 1)).astype(np.float32)
    for result in sweep(checkpoint, images, [Case("torch"), Case("torch", attention="fused"), Case("jax")]):
        assert result.error is not None
        assert 0 < result.error < 2e-6


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_fine_tuned_evaluated_and_goes_on_with_the_same_bits(
    name: str, tmp_path: Path, vitport: Callable[..., Any]
) -> None:
    pytest.importorskip("sklearn")
    given, run, again = written(tmp_path, name, image_size=8), tmp_path / "run", tmp_path / "again"
    options = ("--model.weights", str(given), "--data", "digits", "--epochs", "None", "--steps", "4", "--keep.every",
               "2", "--log-every", "1")  # fmt: skip
    assert main(["train", "--workdir", str(run), *options]) == 0
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints" / "4")
    assert main(["train", "--workdir", str(again)]) == 0
    assert same_bits(weights(run), weights(again))
    found = vitport("evaluate", run, "--data", "digits", "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["images"] == 360


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "differential"])
def test_rollout_is_the_same_from_either_framework(name: str, tmp_path: Path) -> None:
    """In float32; measured 3.8e-8. Differential attention has none: the command refuses it."""
    path = written(tmp_path, name)
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 1)).astype(np.float32)
    in_jax, in_torch = vit_jax.create_model(weights=path), vit_torch.create_model(weights=path).eval()
    in_jax.eval()
    found = rollout(capture_jax(in_jax, images), in_jax.config)
    expected = rollout(capture_torch(in_torch, images), in_torch.config)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 1e-3
