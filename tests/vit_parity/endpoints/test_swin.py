"""Swin Transformers run by transformers, activation by activation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import conversion
from tests.conversion.swin.models import BASE, checkpoint
from vit_parity.capture import capture_torch
from vit_parity.endpoints import parse_endpoint, run_endpoint
from vit_parity.explain import explain
from vit_parity.measure import relative
from vit_parity.replay import ReplayedModel, float64_params
from vit_torch import create_model

_UNSEEN = {"attn.scores", "attn.biased", "attn.masked"}
"""What no module of transformers gives."""


@pytest.mark.parametrize("classes", [5, 0])
@pytest.mark.parametrize("version", [1, 2])
def test_transformers_agrees_layer_by_layer(version: int, classes: int, tmp_path: Path) -> None:
    """Measured 2.9e-7 in version 1 and 8.5e-7 in version 2, in float32."""
    config = BASE.replace(version=version, num_classes=classes, image_size=(32, 48), pad_order="pad_roll")
    ours = checkpoint(config, dtype=np.float32)
    conversion.save(ours, tmp_path / "model", format="huggingface")
    images = np.random.default_rng(0).standard_normal((2, 32, 48, 3)).astype(np.float32)
    expected = capture_torch(create_model(weights=ours).eval(), images).activations
    found = run_endpoint(parse_endpoint(f"transformers:{tmp_path / 'model'}"), ours, images, "float32")
    unseen = {name.partition(".blocks.")[2].partition(".")[2] for name in expected.keys() - found.activations.keys()}
    assert unseen == (_UNSEEN | {"attn.qkv"} if version == 2 else _UNSEEN)  # its linear layers add the biases at once
    assert list(found.activations) == [name for name in expected if name in found.activations]
    for name, array in found.activations.items():
        assert relative(array, expected[name]) < 1e-5, name


def test_a_cause_is_named_in_transformers_activations(tmp_path: Path) -> None:
    """The weights of another epsilon run by transformers: the cause is told, and only that."""
    config = BASE.replace(pad_order="pad_roll", norm_eps=1e-3)
    ours = checkpoint(config, dtype=np.float32)
    conversion.save(ours, tmp_path / "model", format="huggingface")
    images = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
    run = run_endpoint(parse_endpoint(f"transformers:{tmp_path / 'model'}"), ours, images, "float32")
    right = ReplayedModel(config.replace(norm_eps=1e-5), float64_params(ours.params), images)
    (told,) = explain(replace(run, title="B"), right)
    assert told.cause == "uses epsilon 1e-03"
