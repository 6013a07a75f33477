"""transformers' DINOv3ViTModel answers the same as both of ours, read from the folder that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers

import conversion
import vit_jax
import vit_torch
from tests.cross import transformers_folders
from tests.cross.transformers_folders import check_both_spellings, distances, randomize, relative

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 4, "intermediate_size": 70}
VARIANTS: dict[str, dict[str, Any]] = {
    "registers": {"num_register_tokens": 4},
    "no registers": {},
    "gated": {"num_register_tokens": 2, "use_gated_mlp": True, "hidden_act": "silu"},
    "gated by GELU": {"num_register_tokens": 1, "use_gated_mlp": True, "rope_theta": 30.0},
    "all biases": {"key_bias": True, "num_register_tokens": 1},
    "no biases": {"query_bias": False, "value_bias": False, "proj_bias": False, "mlp_bias": False},
}


def model(name: str, size: tuple[int, int] = (24, 40)) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.DINOv3ViTConfig(**SIZES | VARIANTS[name], image_size=list(size))
    return randomize(transformers.DINOv3ViTModel(config))


@pytest.mark.parametrize("name", VARIANTS)
def test_tokens_and_class_token_agree_given_exact_angles(name: str, tmp_path: Path) -> None:
    """6 x 10 patches and a margin that fills none. Measured 6e-16 with transformers' angles in float64."""
    found = distances(model(name, (25, 43)), tmp_path, (25, 43))
    assert set(found) == {f"{framework} {what}" for framework in ("torch", "jax") for what in ("tokens", "answer")}
    assert max(found.values()) < 1e-12, found


def test_what_is_left_is_the_rounding_of_transformers_own_angles(tmp_path: Path) -> None:
    """Its coordinates, frequencies, cosines and sines are float32 in every dtype: angles of up to 2 pi round by 2 pi
    2^-24, 3.7e-7, as far as an output depends on them at most; measured 8e-8, for the class token 6e-8."""
    with mock.patch.object(transformers_folders, "with_exact_angles"):
        found = distances(model("registers"), tmp_path, (24, 40))
    assert 1e-9 < max(found.values()) < 3.7e-7


@pytest.mark.parametrize("size", [(32, 32), (16, 44), (23, 30)])
def test_one_file_serves_images_of_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    """Oracle: the same object of transformers on the same images; both frameworks, class token and patches."""
    theirs = model("gated")
    theirs.save_pretrained(tmp_path)
    transformers_folders.with_exact_angles(theirs.double())
    images = np.random.default_rng(1).standard_normal((2, 3, *size))
    with torch.no_grad():
        expected = theirs(torch.tensor(images)).last_hidden_state.numpy()
        ours = vit_torch.create_model(weights=tmp_path, image_size=size, dtype="float64").eval()
        found = ours.forward_features(torch.tensor(images)).numpy()
    assert relative(found, expected) < 1e-12
    in_jax = vit_jax.create_model(weights=tmp_path, image_size=size)
    in_jax.eval()
    found = np.asarray(in_jax.forward_features(images.transpose(0, 2, 3, 1).astype(np.float32)))
    assert relative(found[:, :1], expected[:, :1]) < 1e-5  # float32, measured 4e-7
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_a_folder_that_is_written_loads_in_transformers_and_answers_the_same(name: str, tmp_path: Path) -> None:
    """No key is missing and none unexpected; outputs are equal bit for bit, as are config and tensors."""
    theirs = model(name)
    theirs.save_pretrained(tmp_path / "a")
    conversion.save(conversion.load(tmp_path / "a"), tmp_path / "b", format="huggingface")
    again, info = transformers.DINOv3ViTModel.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(info.values()), info
    images = torch.randn(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.eval()(images).last_hidden_state, theirs(images).last_hidden_state)


def test_both_spellings_of_names_are_read(tmp_path: Path) -> None:
    check_both_spellings(model("gated"), tmp_path)
