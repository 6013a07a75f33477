"""Attention rollout. Oracle: transformers' attention weights of the same model, rolled out in plain numpy loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import SiglipVisionModel, ViTForImageClassification

import conversion
import vit_jax
import vit_torch
from tests.random_weights import random_params
from vit_parity import capture_jax, capture_torch
from vit_parity.capture import Capture
from vit_parity.rollout import rollout
from vit_spec import ViTConfig, VitportError

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
    for image in range(2):
        joint = np.eye(7)
        for attention in found.attentions:
            mean = attention[image].numpy().astype(np.float64).mean(axis=0)
            joint = (0.5 * mean + 0.5 * np.eye(7)) @ joint
        expected[image] = joint[0, 1:].reshape(2, 3)
    model = vit_jax.create_model(weights=checkpoint)
    model.eval()
    ours = rollout(capture_jax(model, images), CONFIG)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(ours, expected, atol=1e-6)  # measured 1e-7, float32 attention of 7 tokens


def test_an_attention_pool_looks_where_siglips_does(tmp_path) -> None:
    """Oracle: the weights that torch's own attention, the head of transformers' SigLIP, gives for its probe."""
    config = CONFIG.replace(
        image_size=12, class_token=False, pool="map", num_classes=0, activation="gelu_tanh", norm_eps=1e-6
    )
    checkpoint = conversion.Checkpoint.of(config, random_params(config, seed=2, dtype=np.float32))
    conversion.save(checkpoint, tmp_path / "model", format="huggingface-siglip")
    images = np.random.default_rng(0).standard_normal((2, 12, 12, 3)).astype(np.float32)
    theirs = SiglipVisionModel.from_pretrained(tmp_path / "model", attn_implementation="eager").eval()
    with torch.no_grad():
        found = theirs(torch.from_numpy(images).permute(0, 3, 1, 2), output_attentions=True)
        tokens, head = found.last_hidden_state, theirs.head
        _, pooling = head.attention(head.probe.repeat(2, 1, 1), tokens, tokens, need_weights=True)
    joint = np.eye(9)
    for attention in found.attentions:
        joint = (0.5 * attention.numpy().astype(np.float64).mean(axis=1) + 0.5 * np.eye(9)) @ joint
    expected = (pooling.numpy() @ joint).reshape(2, 3, 3)
    model = vit_jax.create_model(weights=checkpoint)
    model.eval()
    assert np.abs(expected - joint.mean(axis=1).reshape(2, 3, 3)).max() > 1e-3
    np.testing.assert_allclose(rollout(capture_jax(model, images), config), expected, atol=1e-6)  # measured 2e-8


@pytest.mark.parametrize("branches", [2, 3])
def test_branches_that_are_added_have_equal_shares(branches: int) -> None:
    """Oracle: the shares of each path through two blocks, added up one by one. Measured 1e-17."""
    config = CONFIG.replace(block="branched", branches=branches, depth=2)
    rng = np.random.default_rng(3)
    names = [[f"blocks.{block}.attns.{branch}.attn.softmax" for branch in range(branches)] for block in range(2)]
    found = {name: rng.dirichlet(np.ones(7), (2, 4, 7)) for block in names for name in block}
    expected = np.zeros((2, 6))
    for image in range(2):
        paths = [[np.eye(7), *(found[name][image].mean(axis=0) for name in block)] for block in names]
        for first in paths[0]:
            for second in paths[1]:
                expected[image] += (second @ first)[0, 1:] / (1 + branches) ** 2
    seen = rollout(Capture("", found, np.zeros((2, 8, 12, 3))), config)
    np.testing.assert_allclose(seen, expected.reshape(2, 2, 3), atol=1e-15)


def test_the_models_with_branches_are_rolled_out() -> None:
    """All that is seen and what the class token keeps add up to 1; each branch counts."""
    config = CONFIG.replace(block="branched", depth=2)
    params = random_params(config, seed=1, dtype=np.float32)
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)
    capture = capture_torch(vit_torch.create_model(weights=conversion.Checkpoint.of(config, params)).eval(), images)
    seen = rollout(capture, config)
    assert (seen > 0).all()
    assert (seen.sum(axis=(1, 2)) < 1).all()
    for name in [name for name in capture.activations if name.endswith("softmax")]:
        alone = dict(capture.activations) | {name: np.broadcast_to(np.eye(7), (2, 4, 7, 7))}
        assert np.abs(rollout(Capture("", alone, images), config) - seen).max() > 1e-3


def test_differential_attention_is_refused() -> None:
    with pytest.raises(VitportError, match="subtracts one softmax from another"):
        rollout(Capture("", {}, np.zeros((1, 8, 12, 3))), CONFIG.replace(differential=True))


def test_a_pool_with_heads_of_its_own_is_read_by_them() -> None:
    """As the Perception Encoder's: two heads here, four in the blocks. Oracle: torch's own attention; measured 3e-8."""
    config = CONFIG.replace(pool="map", map_heads=2, num_classes=0, depth=1, pool_prefix=True)
    model = vit_torch.create_model(
        weights=conversion.Checkpoint.of(config, random_params(config, seed=2, dtype=np.float32))
    ).eval()
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)
    capture = capture_torch(model, images)
    tokens, pool = torch.from_numpy(capture.activations["norm"]), model.get_submodule("attn_pool")
    q, kv = pool.get_submodule("q")(pool.get_parameter("latent")), pool.get_submodule("kv")(tokens)
    logits = torch.einsum("qhd,bnhd->bhn", q.reshape(1, 2, 8), kv[..., :16].reshape(2, 7, 2, 8)) * 8**-0.5
    pooling = logits.softmax(-1).mean(1).detach().numpy()
    attention = (capture.activations["blocks.0.attn.softmax"].mean(1) + np.eye(7)) / 2
    expected = np.einsum("bn,bnm->bm", pooling, attention)[:, 1:].reshape(2, 2, 3)
    np.testing.assert_allclose(rollout(capture, config), expected, atol=1e-6)


@pytest.mark.parametrize(("pool", "share"), [("avg", 1.0), ("token_avg", 0.5), ("token", 0.0)])
def test_what_the_head_reads_is_what_is_rolled_out(pool, share) -> None:
    """Where tokens attend to nothing but themselves, what is seen is the patches' share of what is pooled."""
    distilled = pool == "token"
    config = CONFIG.replace(pool=pool, distilled=distilled, depth=1)
    prefix = config.num_prefix_tokens
    weights = np.tile(np.eye(6 + prefix), (1, 4, 1, 1))
    capture = Capture("", {"blocks.0.attn.softmax": weights}, np.zeros((1, 8, 12, 3)))
    seen = rollout(capture, config)
    np.testing.assert_allclose(seen, np.full((1, 2, 3), share / 6), atol=1e-15)


@pytest.mark.parametrize(("size", "side"), [(None, 192), ("60", 240)])
def test_the_command_writes_the_image_beside_what_the_model_sees(size, side, tmp_path, capsys) -> None:
    """At least 192 pixels high, by whole times: 24 of 8, 4 of 60."""
    from pathlib import Path

    from PIL import Image

    from vit_cli.main import main

    assets = Path(__file__).parents[2] / "vit_cli" / "assets"
    options = [] if size is None else ["--image-size", size]
    out = tmp_path / "out.png"
    weights = str(assets / "digits_vit.safetensors")
    assert main(["rollout", str(assets / "digits.png"), str(out), "--weights", weights, *options]) == 0
    with Image.open(out) as image:
        assert image.size == (2 * side, side)
        pixels = np.asarray(image).astype(int)
    left, right = pixels[:, :side], pixels[:, side:]
    assert (right <= left + 1).all()
    assert "the patch that counts most is in row" in capsys.readouterr().out


def test_a_margin_that_fills_no_patch_stays_dark(tmp_path) -> None:
    """The digits of 8 pixels at 9: patches of 2 leave the last row and the last column out."""
    from pathlib import Path

    from PIL import Image

    from vit_cli.main import main

    assets = Path(__file__).parents[2] / "vit_cli" / "assets"
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(tmp_path / "white.png")
    options = ["--weights", str(assets / "digits_vit.safetensors"), "--image-size", "9"]
    assert main(["rollout", str(tmp_path / "white.png"), str(tmp_path / "out.png"), *options]) == 0
    with Image.open(tmp_path / "out.png") as image:
        seen = np.asarray(image).astype(int)[:, image.width // 2 :].max(axis=-1)
    pixel = len(seen) // 9
    assert set(np.unique(seen[-pixel:])) == set(np.unique(seen[:, -pixel:])) == {64}  # a quarter of white
    assert seen[:-pixel, :-pixel].max() > 250
