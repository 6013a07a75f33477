"""The same function in formats that always have what a model lacks.

Oracles: transformers' own classes, and our PyTorch model of the checkpoint as it was, both in float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import conversion
import vitport
from tests.random_weights import random_params
from tests.vit_torch.models import torch_model
from vit_spec import ViTConfig

BASE = ViTConfig(
    image_size=12, patch_size=4, num_classes=5, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=48, layer_scale=1.0
)
IMAGES = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TOLERANCE = 1e-12
"""Measured 2e-15 on values of order 1: zeros change no sum."""


def written(config: ViTConfig, to: str, folder: Path) -> tuple[conversion.Checkpoint, tuple[str, ...], np.ndarray]:
    """The checkpoint read back, the notes of writing, and the model's answer before."""
    params = random_params(config, seed=3)
    notes = conversion.save(conversion.Checkpoint.of(config, params), folder / "out", format=to, activation="keep")
    with torch.no_grad():
        expected = torch_model(config, params).eval()(IMAGES).numpy()
    return conversion.load(folder / "out", model=config), notes, expected


def ours(checkpoint: conversion.Checkpoint) -> np.ndarray:
    with torch.no_grad():
        return torch_model(checkpoint.config, dict(checkpoint.params)).eval()(IMAGES).numpy()


DINO = {
    "head on the class token": {"pool": "token"},
    "head on the mean": {"pool": "avg"},
    "head on both": {"pool": "token_avg"},
    "registers, head on the class token": {"pool": "token", "register_tokens": 2},
    "registers, head on the mean": {"pool": "avg", "register_tokens": 2},
    "separate gate": {"mlp": "swiglu", "activation": "silu", "mlp_hidden_dim": 32},
    "a width that no ratio gives": {"mlp_hidden_dim": 41},
    "a gated width that no ratio gives": {"mlp": "swiglu_packed", "activation": "silu", "mlp_hidden_dim": 41},
    "no layer scale": {"layer_scale": None},
    "no biases of norms": {"norm_bias": False},
    "no row for the class token": {"pos_embed": "patch"},
    "no bias of keys": {"qkv_bias": False, "qv_bias": True},
}


@pytest.mark.parametrize("name", DINO)
def test_transformers_dinov2_gives_the_models_logits(name, tmp_path) -> None:
    """The commonest fine-tuning: DINOv2 with a head of one's own."""
    config = BASE.replace(**DINO[name])
    checkpoint, notes, expected = written(config, "huggingface-dinov2", tmp_path)
    kind = "Dinov2WithRegisters" if config.register_tokens else "Dinov2"
    theirs = getattr(transformers, f"{kind}ForImageClassification").from_pretrained(tmp_path / "out").double().eval()
    with torch.no_grad():
        np.testing.assert_allclose(theirs(IMAGES).logits.numpy(), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(ours(checkpoint), expected, rtol=0, atol=TOLERANCE)
    assert any("changed: " in note for note in notes) == (name != "head on both")


WITHOUT = {name: {name: False} for name in ("qkv_bias", "proj_bias", "norm_bias", "patch_bias")}
WITHOUT["all biases"] = dict.fromkeys(WITHOUT, False)
WITHOUT["class row"] = {"pos_embed": "patch"}


@pytest.mark.parametrize("to", ["huggingface-vit", "torchvision", "google", "torch-encoder"])
@pytest.mark.parametrize("name", WITHOUT)
def test_what_a_model_lacks_is_written_as_zeros(name, to, tmp_path) -> None:
    config = BASE.replace(layer_scale=None, activation="gelu_tanh" if to == "google" else "gelu", **WITHOUT[name])
    checkpoint, _, expected = written(config, to, tmp_path)
    np.testing.assert_allclose(ours(checkpoint), expected, rtol=0, atol=TOLERANCE)


def test_transformers_vit_gives_the_logits_of_a_model_without_biases(tmp_path) -> None:
    _, notes, expected = written(BASE.replace(layer_scale=None, **WITHOUT["all biases"]), "huggingface", tmp_path)
    theirs = transformers.ViTForImageClassification.from_pretrained(tmp_path / "out").double().eval()
    with torch.no_grad():
        np.testing.assert_allclose(theirs(IMAGES).logits.numpy(), expected, rtol=0, atol=TOLERANCE)
    assert "changed: zeros for the biases that the model does not have (proj_bias, norm_bias, patch_bias)" in notes


def test_a_format_that_holds_the_model_as_it_is_gets_it_as_it_is(tmp_path) -> None:
    config = BASE.replace(layer_scale=None, qkv_bias=False)
    checkpoint, notes, _ = written(config, "huggingface", tmp_path)
    assert checkpoint.provenance.format == "huggingface-vit"
    assert not checkpoint.config.qkv_bias
    assert not [note for note in notes if note.startswith("changed")]


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_conversion_is_verified(pool, tmp_path) -> None:
    config = BASE.replace(pool=pool)
    source = conversion.Checkpoint.of(config, random_params(config, seed=3, dtype=np.float32))
    conversion.save(source, tmp_path / "dino.safetensors", format="timm")
    done = vitport.convert(tmp_path / "dino.safetensors", tmp_path / "out", to="huggingface", verify=True)
    assert done.checkpoint.provenance.format == "huggingface-dinov2"
    assert done.certificate is not None
    assert done.certificate.passed, done.certificate.verdict
