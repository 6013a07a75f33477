"""Factors folded into the layers beside them.

Oracles: our PyTorch model of the checkpoint as it was, in float64, and transformers' classes that have no such factor.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

import conversion
import vitport
from tests.random_weights import random_params
from tests.small_configs import BASE
from tests.vit_torch.models import torch_model
from vit_spec import VitportError

SCALED = BASE.replace(image_size=12, layer_scale=1.0)
IMAGES = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def answer(checkpoint: conversion.Checkpoint) -> np.ndarray:
    with torch.no_grad():
        return torch_model(checkpoint.config, dict(checkpoint.params)).eval()(IMAGES).numpy()


@pytest.mark.parametrize(
    ("fold", "changes"),
    [
        ("layer-scale", {}),
        ("layer-scale", {"proj_bias": False, "mlp": "swiglu_packed"}),
        ("layer-scale", {"block": "parallel"}),
        ("layer-scale", {"block": "post_norm"}),
        ("qk-scale", {"qk_scale": 0.6}),
        ("qk-scale", {"qk_scale": 0.6, "qkv_bias": False}),
        ("qk-scale", {"qk_scale": 0.6, "qkv_bias": False, "qv_bias": True, "rotary": {"kind": "axial"}}),
        ("qk-scale", {"qk_scale": 0.6, "qkv_bias": False, "qv_bias": True, "qk_norm": True, "relative_bias": True}),
        ("qk-scale", {"qk_scale": 0.6, "qk_norm": True}),
        ("qk-scale", {"qk_scale": 0.6, "block": "parallel"}),
        ("qk-scale", {"qk_scale": 0.6, "block": "parallel", "qk_norm": True}),
    ],
)
def test_the_model_computes_the_same_without_the_factor(fold, changes) -> None:
    """Measured 3e-15 on values of order 1."""
    config = SCALED.replace(**changes)
    before = conversion.Checkpoint.of(config, random_params(config, seed=3))
    after = conversion.with_fold(before, [fold])
    field = fold.replace("-", "_")
    assert getattr(after.config, field) is None
    assert "folded" in after.provenance.notes[-1]
    unfolded = conversion.Checkpoint.of(after.config, {name: before.params[name] for name in after.params})
    assert np.abs(answer(unfolded) - answer(before)).max() > 1e-2  # the factor counts
    np.testing.assert_allclose(answer(after), answer(before), rtol=0, atol=1e-12)


def test_a_factor_that_is_not_there_is_refused() -> None:
    config = BASE.replace(layer_scale=None)
    checkpoint = conversion.Checkpoint.of(config, random_params(config, seed=3))
    for fold, words in {"layer-scale": "no layer scale", "qk-scale": "usual one", "norms": "is unknown"}.items():
        with pytest.raises(VitportError, match=words):
            conversion.with_fold(checkpoint, [fold])  # type: ignore[list-item]


def test_dinov2_with_a_head_leaves_to_a_format_without_layer_scale(tmp_path, capsys) -> None:
    """Oracle: transformers' ViTForImageClassification in float64 on the written float32 weights.

    Folding rounds each product to float32 once: measured 6e-8 of the largest logit.
    """
    from vit_cli.main import main

    params = random_params(SCALED, seed=3, dtype=np.float32)
    checkpoint = conversion.Checkpoint.of(SCALED, params)
    conversion.save(checkpoint, tmp_path / "dino.safetensors", format="timm")
    command = ["convert", str(tmp_path / "dino.safetensors"), str(tmp_path / "vit"), "--to", "huggingface-vit"]
    assert main(command) == 2
    assert "or add --fold layer-scale" in capsys.readouterr().err
    assert main([*command, "--fold", "layer-scale", "--verify"]) == 0
    assert "changed: folded the layer scale into the projections that it multiplies" in capsys.readouterr().out
    theirs = transformers.ViTForImageClassification.from_pretrained(tmp_path / "vit").double().eval()
    with torch.no_grad():
        found = theirs(IMAGES).logits.numpy()
        expected = torch_model(SCALED, params).eval()(IMAGES).numpy()
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


def test_a_wrong_product_fails_the_verification(tmp_path, monkeypatch) -> None:
    from conversion.changes.vit import fold

    monkeypatch.setattr(fold, "_scaled_layers", lambda config: [
        (f"blocks.{at}.{scale}.gamma", (f"blocks.{at}.{layer}.weight",))  # forgets the biases
        for at in range(config.depth) for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2"))
    ])  # fmt: skip
    checkpoint = conversion.Checkpoint.of(SCALED, random_params(SCALED, seed=3, dtype=np.float32))
    conversion.save(checkpoint, tmp_path / "dino.safetensors", format="timm")
    done = vitport.convert(
        tmp_path / "dino.safetensors", tmp_path / "vit", to="huggingface-vit", fold=("layer-scale",), verify=True
    )
    assert done.certificate is not None
    assert not done.certificate.passed
    assert done.certificate.first_failure is not None
    assert done.certificate.first_failure[1].name == "blocks.0"
