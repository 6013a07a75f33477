"""Attention rollout. Oracle: transformers' attention weights of the same model, rolled out in plain numpy loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import ViTForImageClassification

import conversion
import vit_jax
from tests.random_weights import random_params
from vit_parity import capture_jax
from vit_parity.rollout import rollout
from vit_spec import ViTConfig

CONFIG = ViTConfig(image_size=(8, 12), patch_size=4, num_classes=5, embed_dim=16, depth=3, num_heads=4, norm_eps=1e-12)


def test_rollout_is_that_of_transformers_attention_weights(tmp_path) -> None:
    params = random_params(CONFIG, seed=1, dtype=np.float32)
    checkpoint = conversion.Checkpoint.of(CONFIG, params)
    conversion.save(checkpoint, tmp_path / "model", format="huggingface-vit")
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)
    theirs = ViTForImageClassification.from_pretrained(tmp_path / "model", attn_implementation="eager").eval()
    with torch.no_grad():
        found = theirs(torch.from_numpy(images).permute(0, 3, 1, 2), output_attentions=True)
    expected = np.zeros((2, 2, 3))
    for picture in range(2):
        joint = np.eye(7)
        for attention in found.attentions:
            mean = attention[picture].numpy().astype(np.float64).mean(axis=0)
            joint = (0.5 * mean + 0.5 * np.eye(7)) @ joint
        expected[picture] = joint[0, 1:].reshape(2, 3)
    model = vit_jax.create_model(weights=checkpoint)
    model.eval()
    ours = rollout(capture_jax(model, images), CONFIG)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(ours, expected, atol=1e-6)  # measured 1e-7, float32 attention of 7 tokens


@pytest.mark.parametrize(("size", "side"), [(None, 192), ("60", 240)])
def test_the_command_writes_the_picture_beside_what_the_model_sees(size, side, tmp_path, capsys) -> None:
    """At least 192 pixels high, by whole times: 24 of 8, 4 of 60."""
    from pathlib import Path

    from PIL import Image

    from vit_cli.main import main

    assets = Path(__file__).parents[2] / "vit_cli" / "assets"
    options = [] if size is None else ["--image-size", size]
    out = tmp_path / "out.png"
    weights = str(assets / "digits_vit.safetensors")
    assert main(["rollout", str(assets / "digits.png"), str(out), "--weights", weights, *options]) == 0
    with Image.open(out) as picture:
        assert picture.size == (2 * side, side)
        pixels = np.asarray(picture).astype(int)
    left, right = pixels[:, :side], pixels[:, side:]
    assert (right <= left + 1).all()
    assert "most is made of the patch in row" in capsys.readouterr().out
