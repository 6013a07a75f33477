"""Sapiens2: layer scale on attention alone, RMSNorm, and heads that share keys and values. Oracle: transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import Sapiens2Config, Sapiens2Model

import conversion
import vit_jax
import vit_torch
import vitport
from conversion.changes.trained import before_training
from tests.conversion.canaries import assert_same_tensors
from tests.random_weights import random_params
from vit_spec import VitportError, get_model
from vit_spec.vit.rotary import DinoV3Rotary

SIZE = 96, 160
SHARED = [4, 2, 1, 4]
CONFIG = get_model("vit_large_patch16_sapiens2").config.replace(
    image_size=SIZE, embed_dim=48, depth=4, num_heads=4, mlp_hidden_dim=56, register_tokens=3, patch_size=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder that transformers wrote, and its tokens for :func:`pixels`."""
    torch.manual_seed(0)
    config = Sapiens2Config(
        hidden_size=48, intermediate_size=56, num_hidden_layers=4, num_attention_heads=4, patch_size=32,
        image_size=list(SIZE), num_register_tokens=3, num_key_value_heads_per_layer=SHARED, use_mask_token=True,
    )  # fmt: skip
    model = Sapiens2Model(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            factor = "norm" in name or "lambda" in name
            parameter.normal_(std=0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5).add_(float(factor))
        path = tmp_path_factory.mktemp("sapiens2")
        model.save_pretrained(path)
        tokens = model.double()(torch.tensor(pixels())).last_hidden_state.numpy()
    return path, tokens


def pixels() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, 3, *SIZE))


def test_tokens_are_those_of_transformers(folder: tuple[Path, np.ndarray]) -> None:
    """transformers computes angles and norms in float32 whatever the dtype. Measured, of the
    largest value: 1.6e-7 in PyTorch's float64, 2.0e-6 in JAX's float32."""
    path, expected = folder
    checkpoint = conversion.load(path)
    assert checkpoint.config.scale_attention_only
    assert checkpoint.config == CONFIG
    in_torch = vit_torch.create_model(weights=path).double().eval()
    with torch.no_grad():
        actual = in_torch.forward_features(torch.tensor(pixels())).numpy()
    in_jax = vit_jax.create_model(weights=path)
    in_jax.eval()
    other = np.asarray(in_jax.forward_features(jnp.asarray(pixels().transpose(0, 2, 3, 1), jnp.float32)))
    for part in (slice(0, 1), slice(1, 4), slice(4, None)):  # class token, registers, patches
        largest = np.abs(expected[:, part]).max()
        assert np.abs(actual[:, part] - expected[:, part]).max() < 2e-6 * largest
        assert np.abs(other[:, part] - expected[:, part]).max() < 1e-5 * largest


def test_timm_gets_shared_heads_once_again(folder: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Written for timm and read again, and verified by a second reading of either file."""
    path, _ = folder
    done = vitport.convert(path, tmp_path / "timm.safetensors", to="timm", verify=True)
    assert done.certificate is not None
    assert done.certificate.passed
    written, original = load_file(tmp_path / "timm.safetensors"), load_file(path / "model.safetensors")
    for at, heads in enumerate(SHARED):
        assert written[f"blocks.{at}.attn.k_proj.weight"].shape == (12 * heads, 48)
        for part in "kv":
            for leaf in ("weight", "bias"):
                there = written[f"blocks.{at}.attn.{part}_proj.{leaf}"]
                np.testing.assert_array_equal(there, original[f"blocks.{at}.attn.w{part}.{leaf}"])
    again = conversion.load(tmp_path / "timm.safetensors", model=CONFIG)
    assert_same_tensors(again.params, conversion.load(path).params)


def test_a_folder_is_written_as_it_was_read(folder: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Shared heads once again, so every array is the one that was read; and transformers' own answers with them."""
    path, expected = folder
    checkpoint = conversion.load(path)
    assert "heads share keys and values in 2 blocks: each head has its own here" in checkpoint.provenance.notes
    conversion.save(checkpoint, tmp_path / "ours", format="huggingface")
    written, original = (load_file(at / "model.safetensors") for at in (tmp_path / "ours", path))
    assert written.keys() | {"embeddings.mask_token"} == original.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, original[name], err_msg=name)
    loaded: Any = Sapiens2Model.from_pretrained(tmp_path / "ours", output_loading_info=True)
    model, told = loaded
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.num_key_value_heads_per_layer == SHARED
    with torch.no_grad():
        tokens = model.double().eval()(torch.tensor(pixels())).last_hidden_state.numpy()
    assert np.abs(tokens - expected).max() < 1e-13 * np.abs(expected).max()  # measured 2e-15: the same arrays


@pytest.mark.parametrize("place", ["file", "folder"])
def test_the_names_in_memory_are_the_same_model(place: str, folder: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """A ``state_dict`` that was dumped, alone and beside config.json; shared heads in it, too."""
    path, _ = folder
    dumped = {name: it.contiguous() for name, it in Sapiens2Model.from_pretrained(path).state_dict().items()}
    assert dumped["model.layer.1.attention.k_proj.weight"].shape == (24, 48)
    if place == "folder":
        Sapiens2Model.from_pretrained(path).config.save_pretrained(tmp_path)
    save_file({name: it.numpy() for name, it in dumped.items()}, tmp_path / "model.safetensors")
    read = tmp_path if place == "folder" else tmp_path / "model.safetensors"
    memory, disk = conversion.load(read), conversion.load(path)
    assert memory.provenance.format == "sapiens2"
    assert "heads share keys and values in 2 blocks: each head has its own here" in memory.provenance.notes
    assert_same_tensors(memory.params, disk.params)
    if place == "folder":
        assert memory.config == disk.config
        done = vitport.convert(read, tmp_path / "ours", to="huggingface", verify=True)
        assert done.certificate is not None
        assert done.certificate.passed


def test_heads_that_training_moved_apart_are_written_apart(folder: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Said before training; the folder then says that each head has its own, and transformers runs it so."""
    checkpoint = conversion.load(folder[0])
    (said,) = before_training(checkpoint)
    assert "which heads share in 2 of 4 blocks" in said
    moved = {name: array.copy() for name, array in checkpoint.params.items()}
    moved["blocks.1.attn.qkv.weight"][48] += 0.1  # a row of one head's keys
    trained = conversion.Checkpoint.of(checkpoint.config, moved)
    conversion.save(trained, tmp_path / "ours", format="sapiens2")
    assert_same_tensors(conversion.load(tmp_path / "ours").params, trained.params)
    model = Sapiens2Model.from_pretrained(tmp_path / "ours", dtype=torch.float64).eval()
    assert model.config.num_key_value_heads_per_layer == [4, 4, 1, 4]
    with torch.no_grad():
        expected = model(torch.tensor(pixels())).last_hidden_state.numpy()
        actual = (
            vit_torch.create_model(weights=trained, dtype=torch.float64)
            .eval()
            .forward_features(torch.tensor(pixels()))
            .numpy()
        )
    assert np.abs(actual - expected).max() < 2e-6 * np.abs(expected).max()  # its float32 norms: measured 2e-7
    assert before_training(conversion.Checkpoint.of(CONFIG, random_params(CONFIG, 1, np.float32))) == ()


def test_heads_that_no_longer_agree_are_written_apart(tmp_path: Path) -> None:
    checkpoint = conversion.Checkpoint.of(CONFIG, random_params(CONFIG, 1, np.float32))
    conversion.save(checkpoint, tmp_path / "own.safetensors", format="timm")
    assert load_file(tmp_path / "own.safetensors")["blocks.1.attn.k_proj.weight"].shape == (48, 48)
    assert_same_tensors(conversion.load(tmp_path / "own.safetensors", model=CONFIG).params, checkpoint.params)


def test_shared_heads_of_unknown_width_are_refused(folder: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    arrays = load_file(folder[0] / "model.safetensors")
    bare = {name: array for name, array in arrays.items() if "_norm" not in name}
    save_file(bare, tmp_path / "bare.safetensors")
    with pytest.raises(VitportError, match=r"wk.bias has 24 rows beside 48 of queries: heads that share"):
        conversion.load(tmp_path / "bare.safetensors")


def test_a_file_alone_says_all_but_the_images_size(folder: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    torch.save(
        {name: torch.tensor(array) for name, array in load_file(folder[0] / "model.safetensors").items()},
        tmp_path / "sapiens2.pth",
    )
    config = conversion.load(tmp_path / "sapiens2.pth").config
    assert config.layer_scale is not None
    assert config == CONFIG.replace(image_size=224, layer_scale=config.layer_scale)
    assert config.rotary == DinoV3Rotary()
