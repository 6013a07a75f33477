"""What is refused says what would do. Oracle: following the advice."""

from __future__ import annotations

import re

import numpy as np
import pytest
from safetensors.numpy import save_file

import conversion
from tests.conversion.canaries import canary_params
from vit_cli.main import main
from vit_spec import UnfitError, UnstatedError, ViTConfig, VitportError

BASE = ViTConfig(image_size=12, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5)
UNFIT = {
    "an image that is not square": (
        {"layer_scale": 1e-5, "num_classes": 0, "image_size": (12, 20)}, "huggingface-dinov2", "--image-size 20"
    ),
    "the same among all folders": (
        {"layer_scale": 1e-5, "num_classes": 0, "image_size": (12, 20)}, "huggingface", "--image-size 20"
    ),
    "siglip with a head": ({"class_token": False, "pool": "map"}, "huggingface", "--head drop"),
    "another GELU for google": ({}, "google", "--activation tanh"),
    "two changes for big_vision": ({}, "big-vision", "--positions patch --activation tanh"),
    "a GELU and a side for torchvision": (
        {"activation": "gelu_tanh", "image_size": (12, 20)}, "torchvision", "--activation erf --image-size 20"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(UNFIT))
def test_the_option_that_is_named_makes_the_model_fit(what, tmp_path, capsys) -> None:
    changes, target, options = UNFIT[what]
    config = BASE.replace(**changes)
    conversion.save(
        conversion.Checkpoint.of(config, canary_params(config)), tmp_path / "w", format="timm", activation="keep"
    )
    asked = ["convert", str(tmp_path / "w"), str(tmp_path / "out"), "--to", target]
    assert main(asked) == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert first.endswith(f"or add {options}.")
    assert all(re.match(r"  [\w-]+ cannot hold ", line) for line in others)
    assert main([*asked, *options.split()]) == 0


def test_a_head_with_a_bias_does_not_fit_clips_projection_and_dropping_it_helps(tmp_path, capsys) -> None:
    config = BASE.replace(pre_norm=True, patch_bias=False, activation="quick_gelu", norm_eps=1e-5)
    conversion.save(
        conversion.Checkpoint.of(config, canary_params(config)), tmp_path / "w", format="timm", activation="keep"
    )
    asked = ["convert", str(tmp_path / "w"), str(tmp_path / "out"), "--to", "huggingface"]
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert re.search(r"The head has a bias other than zero, .*, such as timm, or add --head drop\.$", told.strip())
    assert not (tmp_path / "out").exists()
    assert main([*asked, "--head", "drop"]) == 0


def test_what_no_option_helps_names_none(tmp_path) -> None:
    config = BASE.replace(qk_norm=True)
    with pytest.raises(UnfitError, match=r"cannot hold qk_norm=True: choose another format, such as timm\.") as caught:
        conversion.save(
            conversion.Checkpoint.of(config, canary_params(config)), tmp_path / "w", format="huggingface-vit"
        )
    assert caught.value.lines == (str(caught.value),)


WORDS = {
    "onnx": r"`vitport export MODEL OUT\.onnx` writes it", "openvino": r"OUT\.onnx` writes ONNX, which OpenVINO reads",
    "stablehlo": r"OUT\.stablehlo` writes it", "pt2": r"OUT\.pt2` writes it",
    "safetensors": "--to timm .*or huggingface", "msgpack": "--to google-linen",
    "npz": "--to google, big-vision", "dinov2": "--to huggingface-dinov2", "orbax": "--to flax",
    "pytorch": "--to timm .*torchvision", "torch": "--to timm", "jax": "--to flax", "hf": "--to huggingface",
    "transformers": "--to huggingface", "keras": "does not write keras", "tf": "does not write tf",
    "gguf": "does not write gguf", "ONNX": r"`vitport export MODEL OUT\.onnx`", ".pth": "--to timm",
    "open_clip": "huggingface-clip", "scenic": "google-linen", "h5": "does not write h5",
    "hugging-face": "--to huggingface", "torchscript": "jit", "huggingface_vit": "did you mean huggingface-vit",
    "bigvision": "did you mean big-vision",
    "xyz": "choose one of big-vision, .*, flax, flax-swin,", "all": "choose one of", "cait": "another kind of model",
    "Timm": r"did you mean timm\? `--to all` lists all formats\.$",
    "orbax-checkpoint": "--to flax", "clip model": "--to huggingface-clip", "zarr": "--to flax",
    "npy": "--to google", "beit": "--to huggingface-beit",
    "model": "choose one of", "HuggingFace": "did you mean huggingface or",
}  # fmt: skip


@pytest.mark.parametrize("word", list(WORDS))
def test_a_word_that_is_no_format_gets_what_is_meant(word, tmp_path, capsys) -> None:
    conversion.save(conversion.Checkpoint.of(BASE, canary_params(BASE)), tmp_path / "w", format="timm")
    assert main(["convert", str(tmp_path / "w"), str(tmp_path / "out"), "--to", word]) == 2
    assert re.search(WORDS[word], capsys.readouterr().err)
    with pytest.raises(VitportError):
        conversion.load(tmp_path / "w", format=word)
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_architecture_is_refused_before_it_is_asked_for_heads(tmp_path) -> None:
    hybrid = {"patch_embed.backbone.stem.conv.weight": np.ones((8, 3, 7, 7), np.float32)}  # timm's vit_base_r50_s16
    save_file(canary_params(BASE) | hybrid, tmp_path / "w.safetensors")
    with pytest.raises(
        VitportError, match=r"1 tensor of it belongs? to no model .* \(patch_embed\.backbone\.stem\.conv"
    ):
        conversion.load(tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match=r"surplus patch_embed\.backbone\.stem\.conv\.weight"):
        conversion.load(tmp_path / "w.safetensors", model=BASE)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_norms_of_either_pooling_are_asked_for_as_before(pool, tmp_path) -> None:
    config = BASE.replace(pool=pool, final_norm="pooled" if pool == "avg" else "tokens")
    save_file(canary_params(config), tmp_path / "w.safetensors")
    with pytest.raises(UnstatedError, match=r"does not say its num_heads"):
        conversion.load(tmp_path / "w.safetensors")


def test_a_batch_norm_is_not_taken_for_a_quantised_weight(tmp_path) -> None:
    xcit = {"patch_embed.proj.0.1.num_batches_tracked": np.zeros((), np.int64)}
    save_file(canary_params(BASE) | xcit, tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match=r"holds a batch norm \(patch_embed\.proj\.0\.1\.num_batches_tracked\)"):
        conversion.load(tmp_path / "w.safetensors", model=BASE)
