"""Vision towers of transformers: TIPSv2, InternVL, AIMv2; and those that are refused by name. Oracle: their classes.

AIMv2's and InternVL's RMSNorm computes in float32 whatever the model's dtype. Here ``torch.float32`` is given as
float64 while transformers runs, so all is float64: measured at most 2e-15 of the largest value, asserted 1e-13.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers as t
from safetensors.numpy import load_file, save_file

import conversion
import vit_torch
import vitport
from tests.conversion.randomised import randomised
from vit_parity.semantics import semantics_of_file
from vit_spec import VitportError

SIZES: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 4}
SQUARE: dict[str, Any] = SIZES | {"image_size": 12}
TIPS: dict[str, Any] = SQUARE | {"num_register_tokens": 2, "layer_norm_eps": 1e-3}
INTERN: dict[str, Any] = SQUARE | {"intermediate_size": 41, "layer_norm_eps": 1e-3}
AIM: dict[str, Any] = SQUARE | {"intermediate_size": 41, "rms_norm_eps": 1e-3}
MODELS: dict[str, tuple[type, Any, str]] = {
    "tipsv2": (t.Tipsv2VisionModel, t.Tipsv2VisionConfig(**TIPS, mlp_ratio=1.71), "huggingface-tipsv2"),
    "tipsv2-swiglu": (
        t.Tipsv2VisionModel, t.Tipsv2VisionConfig(**TIPS, use_swiglu_ffn=True, qkv_bias=False), "huggingface-tipsv2"
    ),
    "internvl": (t.InternVLVisionModel, t.InternVLVisionConfig(**INTERN, attention_bias=True), "huggingface-internvl"),
    "internvl-rms": (
        t.InternVLVisionModel, t.InternVLVisionConfig(**INTERN, norm_type="rms_norm"), "huggingface-internvl"
    ),
    "internvl-token": (
        t.InternVLVisionModel,
        t.InternVLVisionConfig(**INTERN, use_mean_pooling=False, use_mask_token=True, hidden_act="gelu_new"),
        "huggingface-internvl",
    ),
    "aimv2": (t.Aimv2VisionModel, t.Aimv2VisionConfig(**AIM, use_head=False), "huggingface-aimv2"),
    "aimv2-head": (t.Aimv2VisionModel, t.Aimv2VisionConfig(**AIM), "huggingface-aimv2"),
    "aimv2-biased": (
        t.Aimv2VisionModel, t.Aimv2VisionConfig(**AIM, qkv_bias=True, mlp_bias=True), "huggingface-aimv2"
    ),
}  # fmt: skip
TOLERANCE = 1e-13


def pixels(size: tuple[int, int] = (12, 12)) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(2, 3, *size, dtype=torch.float64)


def run(model: torch.nn.Module, x: torch.Tensor) -> Any:
    with torch.no_grad(), mock.patch.object(torch, "float32", torch.float64):
        return model(x)


def assert_tokens(model: torch.nn.Module, checkpoint: conversion.Checkpoint, x: torch.Tensor, most: float) -> None:
    """Class token, registers and patches, each beside its own largest value; then what is pooled."""
    theirs = run(model, x)
    mine = vit_torch.create_model(weights=checkpoint, dtype=torch.float64).eval()
    with torch.no_grad():
        tokens, pooled = mine.forward_features(x).numpy(), mine(x).numpy()
    expected = theirs.last_hidden_state.numpy()
    prefix = checkpoint.config.num_prefix_tokens
    assert tokens.shape == expected.shape
    for part in (slice(0, 1), slice(1, prefix), slice(prefix, None)):
        if expected[:, part].size:
            assert np.abs(tokens[:, part] - expected[:, part]).max() < most * np.abs(expected[:, part]).max()
    told = theirs.pooler_output
    if told is None:
        told = (
            theirs.last_hidden_state[:, 0]
            if checkpoint.config.pool == "token"
            else theirs.last_hidden_state[:, prefix:].mean(1)
        )
    assert np.abs(pooled - told.numpy()).max() < most * told.abs().max().item()


IN_MEMORY = [pytest.param(name, False, id=f"{name}-in memory") for name in MODELS if name.startswith("tipsv2")]
"""The others have the same names in memory."""


@pytest.mark.parametrize(("name", "on_disk"), [*(pytest.param(name, True, id=name) for name in MODELS), *IN_MEMORY])
def test_a_folder_of_transformers_is_read_and_written(name: str, on_disk: bool, tmp_path: Path) -> None:
    """Under the names of files and those in memory; what is written has every tensor that transformers expects."""
    cls, config, format_name = MODELS[name]
    model, x = randomised(cls, config), pixels()
    model.save_pretrained(tmp_path / "theirs", save_original_format=on_disk)
    checkpoint = conversion.load(tmp_path / "theirs")
    assert checkpoint.provenance.format == format_name
    assert_tokens(model, checkpoint, x, TOLERANCE)
    found = semantics_of_file(tmp_path / "theirs", checkpoint.config).run(x.numpy().transpose(0, 2, 3, 1))
    expected = run(model, x).last_hidden_state.numpy()
    assert np.abs(found["norm"] - expected).max() < TOLERANCE * np.abs(expected).max()
    conversion.save(checkpoint, tmp_path / "ours", format=format_name, activation="keep")
    again, told = cls.from_pretrained(tmp_path / "ours", dtype=torch.float64, output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for at, array in again.state_dict().items():
        assert "mask_token" in at or torch.equal(array, model.state_dict()[at]), at


@pytest.mark.parametrize("name", ["tipsv2", "internvl", "internvl-token"])
@pytest.mark.parametrize("size", [(20, 16), (8, 20)])
def test_positions_are_resized_as_transformers_does(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """For images that are not square. TIPSv2 interpolates in float32, which is float64 here: 4e-15 measured."""
    cls, config, _ = MODELS[name]
    model = randomised(cls, config)
    model.save_pretrained(tmp_path)
    resized = conversion.prepare(None, weights=conversion.load(tmp_path), image_size=size)
    assert_tokens(model, resized, pixels(size), TOLERANCE)


@pytest.mark.parametrize("head", [True, False])
def test_native_aimv2_computes_its_positions(head: bool, tmp_path: Path) -> None:
    """From the images' size, which may be any: here 3 x 5 patches. It is written with them as a table, if square."""
    config = t.Aimv2VisionConfig(**AIM, is_native=True, use_head=head)
    model = randomised(t.Aimv2VisionModel, config)
    model.save_pretrained(tmp_path / "native")
    told = json.loads((tmp_path / "native" / "config.json").read_text()) | {"image_size": [12, 20]}
    (tmp_path / "native" / "config.json").write_text(json.dumps(told))
    checkpoint = conversion.load(tmp_path / "native")
    assert checkpoint.config.grid_size == (3, 5)
    assert_tokens(model, checkpoint, pixels((12, 20)), TOLERANCE)
    found = semantics_of_file(tmp_path / "native", checkpoint.config).run(
        pixels((12, 20)).numpy().transpose(0, 2, 3, 1)
    )
    expected = run(model, pixels((12, 20))).last_hidden_state.numpy()
    assert np.abs(found["norm"] - expected).max() < TOLERANCE * np.abs(expected).max()
    with pytest.raises(VitportError, match="12x20"):
        conversion.save(checkpoint, tmp_path / "oblong", format="huggingface-aimv2")
    bare = load_file(tmp_path / "native" / "model.safetensors")
    save_file(bare, tmp_path / "bare.safetensors")
    with pytest.raises(VitportError, match="computes its positions from the size of the images"):
        conversion.load(tmp_path / "bare.safetensors", facts={"num_heads": 3})


def test_a_pooling_that_was_trained_further_is_not_written_as_aimv2(tmp_path: Path) -> None:
    cls, config, name = MODELS["aimv2-head"]
    randomised(cls, config).save_pretrained(tmp_path / "theirs")
    checkpoint = conversion.load(tmp_path / "theirs")
    moved = dict(checkpoint.params) | {"attn_pool.q.bias": np.full(24, 0.1)}
    changed = conversion.Checkpoint.of(checkpoint.config, moved)
    with pytest.raises(VitportError, match=r"attn_pool.q.bias, which is not the fixed table"):
        conversion.save(changed, tmp_path / "ours", format=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_conversion_is_verified_by_a_second_reading(name: str, tmp_path: Path) -> None:
    """To the Flax tree and back: both frameworks, and the files by their own names."""
    cls, config, format_name = MODELS[name]
    randomised(cls, config).float().save_pretrained(tmp_path / "theirs")
    there = vitport.convert(tmp_path / "theirs", tmp_path / "flax", to="flax", verify=True)
    back = vitport.convert(tmp_path / "flax", tmp_path / "ours", to=format_name, activation="keep", verify=True)
    for done in (there, back):
        assert done.certificate is not None
        assert done.certificate.passed


REFUSED: dict[str, tuple[type, Any, str]] = {
    "several class tokens": (t.RadioModel, t.RadioConfig(**SQUARE, max_img_size=16), "several class tokens"),
    "norms of all heads": (
        t.InternVLVisionModel, t.InternVLVisionConfig(**INTERN, use_qk_norm=True), "over all heads at once"
    ),
    "two kinds of norm": (
        t.InternVLVisionModel,
        t.InternVLVisionConfig(**INTERN, norm_type="rms_norm", use_mean_pooling=False),
        "one kind of norm",
    ),
    "biases in part": (t.Aimv2VisionModel, t.Aimv2VisionConfig(**AIM, qkv_bias=True), "or in neither"),
    "windows": (
        t.SamVisionModel,
        t.SamVisionConfig(**SQUARE, output_channels=8, global_attn_indexes=[0], window_size=2),
        "within windows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_engine_lacks_is_refused_by_its_cause(name: str, tmp_path: Path) -> None:
    cls, config, told = REFUSED[name]
    cls(config).save_pretrained(tmp_path)
    with pytest.raises(VitportError, match=told):
        conversion.load(tmp_path)


@pytest.mark.parametrize("original", [True, False], ids=["on disk", "in memory"])
def test_a_file_of_radio_without_its_config_is_refused_by_its_cause(original: bool, tmp_path: Path) -> None:
    model = t.RadioModel(t.RadioConfig(**SQUARE, max_img_size=16))
    model.save_pretrained(tmp_path, save_original_format=original)
    with pytest.raises(VitportError, match=r"RADIO.* is resized and cut for every image: .*vit_base_patch16_radio_v3"):
        conversion.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "lost"), [("aimv2-head", "head.cls_token"), ("aimv2", "embeddings.position_embedding.weight")]
)
def test_a_folder_that_lost_what_its_config_speaks_of_is_refused(name: str, lost: str, tmp_path: Path) -> None:
    cls, config, _ = MODELS[name]
    cls(config).save_pretrained(tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    kept = {
        at: x
        for at, x in arrays.items()
        if not at.startswith(lost.partition(".")[0] if lost.startswith("head") else lost)
    }
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(VitportError, match=f"has no {lost}"):
        conversion.load(tmp_path)
