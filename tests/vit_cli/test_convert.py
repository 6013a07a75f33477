"""``vitport convert`` against the tensors themselves."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import conversion
from tests.vit_cli.conftest import tiny_checkpoint


def test_there_and_back_every_bit_is_the_same(weights, tmp_path, vitport):
    """safetensors → Flax → safetensors; the oracle reads both ends with the safetensors library."""
    assert vitport("convert", weights, tmp_path / "flax", "--to", "flax").code == 0
    assert vitport("convert", tmp_path / "flax", tmp_path / "back.safetensors", "--to", "timm").code == 0
    before, after = load_file(weights), load_file(tmp_path / "back.safetensors")
    assert set(before) == set(after)
    for name, array in before.items():
        assert array.tobytes() == after[name].tobytes(), name
    assert conversion.load(tmp_path / "back.safetensors").config == tiny_checkpoint().config


def test_what_was_written_is_told_with_its_hash(weights, tmp_path, vitport):
    """Oracle: hashlib on the new file."""
    target = tmp_path / "copy.safetensors"
    result = vitport("convert", weights, target, "--to", "timm")
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    assert result.out.splitlines()[-1] == f"sha256 {digest}"
    assert result.out.startswith(f"wrote {target}: {len(load_file(target))} tensors, 0.01 M parameters, format timm\n")
    assert result.err == ""


def test_an_existing_destination_is_kept_unless_told_otherwise(weights, tmp_path, vitport):
    """Its bytes stay; with --overwrite they are replaced."""
    target = tmp_path / "there.safetensors"
    target.write_bytes(b"precious")
    result = vitport("convert", weights, target, "--to", "timm")
    assert result.code == 2
    assert "--overwrite" in result.err
    assert target.read_bytes() == b"precious"
    assert vitport("convert", weights, target, "--to", "timm", "--overwrite").code == 0
    assert load_file(target).keys() == load_file(weights).keys()


@pytest.mark.parametrize("size", [["16"], ["8", "24"]], ids=["side", "height and width"])
def test_position_table_is_resized_to_the_size_asked_for(size, weights, tmp_path, vitport):
    """Oracle: torch's bicubic interpolation with antialias, the method of the file's family."""
    target = tmp_path / "resized.safetensors"
    assert vitport("convert", weights, target, "--to", "timm", "--image-size", *size).code == 0
    height, width = (int(side) for side in (size * 2)[:2])
    table = torch.tensor(load_file(weights)["pos_embed"])
    grid = table[:, 1:].reshape(1, 3, 5, 24).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (height // 4, width // 4), mode="bicubic", antialias=True)
    expected = torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1).numpy()
    np.testing.assert_allclose(load_file(target)["pos_embed"], expected, rtol=0, atol=1e-5)
    assert conversion.load(target).config.image_size == (height, width)


def test_one_of_several_sets_of_weights_can_be_chosen(tmp_path, vitport):
    """A training checkpoint with a moving average beside the weights, which is the one that arrives."""
    params = tiny_checkpoint(image_size=12).params
    tensors = {name: torch.tensor(array) for name, array in params.items()}
    averaged = {name: tensor + 1 for name, tensor in tensors.items()}
    torch.save({"model": tensors, "model_ema": averaged}, tmp_path / "training.pt")
    target = tmp_path / "ema.safetensors"
    args = ("--to", "timm", "--weights-key", "model_ema", "--model", "vit_tiny_patch16_224")
    assert vitport("convert", tmp_path / "training.pt", target, *args).code == 0
    np.testing.assert_array_equal(load_file(target)["head.bias"], averaged["head.bias"].numpy())
