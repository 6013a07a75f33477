"""``vitport convert`` against the tensors themselves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save

import conversion
from conversion.containers import safetensors_file
from conversion.formats import FORMATS
from tests.random_weights import random_params
from tests.vit_cli.conftest import tiny_checkpoint
from vit_spec import ViTConfig, get_model


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
    wrote = f"wrote {target}: {len(load_file(target))} tensors, 0.01 M parameters, format timm"
    assert result.out.splitlines()[-2] == wrote
    facts = "num_heads 3, activation gelu, norm_eps 1e-06, pool token, norm layernorm"
    assert result.out.startswith(f"read {weights}: {facts} (from the file's own record)\n")
    assert result.err == ""


def test_an_existing_destination_is_kept_unless_told_otherwise(weights, tmp_path, vitport):
    """Its bytes stay; with --overwrite they are replaced."""
    target = tmp_path / "there.safetensors"
    precious = save({"precious": np.ones(3, np.float32)})
    target.write_bytes(precious)
    result = vitport("convert", weights, target, "--to", "timm")
    assert result.code == 2
    assert "--overwrite" in result.err
    assert target.read_bytes() == precious
    assert vitport("convert", weights, target, "--to", "timm", "--overwrite").code == 0
    assert load_file(target).keys() == load_file(weights).keys()


def test_a_folder_of_somebody_else_is_never_replaced(weights, tmp_path, vitport):
    (tmp_path / "home" / "photos").mkdir(parents=True)
    (tmp_path / "home" / "thesis.txt").write_text("ten years")
    for name in ("timm", "flax"):
        result = vitport("convert", weights, tmp_path / "home", "--to", name, "--overwrite")
        assert result.code == 2
        assert result.out == ""
        assert result.err.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["photos", "thesis.txt"]
    assert (tmp_path / "home" / "thesis.txt").read_text() == "ten years"


@pytest.mark.parametrize("name", ["", ".", "..", "n" * 300, os.devnull, "no/such/folder"])
def test_a_destination_that_cannot_be_written_is_one_sentence(name, weights, tmp_path, vitport, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.iterdir())
    result = vitport("convert", weights, name, "--to", "timm", "--overwrite")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("name", ["weights", "out", "device", "folder"])
def test_a_certificate_replaces_no_weights_and_goes_to_a_file(name, weights, tmp_path, vitport):
    place = {"weights": weights, "out": tmp_path / "out", "device": os.devnull, "folder": tmp_path}[name]
    before = weights.read_bytes()
    result = vitport("convert", weights, tmp_path / "out", "--to", "timm", "--verify", "--certificate", place)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert weights.read_bytes() == before
    assert not (tmp_path / "out").exists()


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
    params = random_params(get_model("vit_tiny_patch16_224").config, seed=1, dtype=np.float32)
    tensors = {name: torch.tensor(array) for name, array in params.items()}
    averaged = {name: tensor + 1 for name, tensor in tensors.items()}
    torch.save({"model": tensors, "model_ema": averaged}, tmp_path / "training.pt")
    target = tmp_path / "ema.safetensors"
    args = ("--to", "timm", "--weights-key", "model_ema", "--model", "vit_tiny_patch16_224")
    result = vitport("convert", tmp_path / "training.pt", target, *args)
    assert result.code == 0
    assert "note: read the weights under 'model_ema', as asked" in result.out
    np.testing.assert_array_equal(load_file(target)["head.bias"], averaged["head.bias"].numpy())


@pytest.fixture
def google(tmp_path):
    """Weights in Google's own format, whose GELU is the tanh form."""
    config = ViTConfig(image_size=12, patch_size=4, num_classes=5, embed_dim=24, depth=2, num_heads=3)
    config = config.replace(activation="gelu_tanh", pos_embed_resize="scipy-zoom")
    path = tmp_path / "google.npz"
    conversion.save(conversion.Checkpoint.of(config, random_params(config, seed=1)), path, format="google")
    return path


@pytest.mark.parametrize("to", ["timm", "huggingface"])
def test_a_form_of_gelu_that_readers_would_not_expect_must_be_chosen(to, google, tmp_path, vitport):
    result = vitport("convert", google, tmp_path / "out", "--to", to)
    assert result.code == 2
    assert "The weights run gelu_tanh" in result.err
    assert "--activation" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("choice", "written", "act"), [("keep", "gelu_tanh", "gelu_pytorch_tanh"), ("erf", "gelu", "gelu")]
)
def test_the_chosen_form_of_gelu_is_what_is_written(choice, written, act, google, tmp_path, vitport):
    """Oracle: the file's own header, and config.json."""
    result = vitport("convert", google, tmp_path / "timm", "--to", "timm", "--activation", choice)
    assert result.code == 0
    assert conversion.load(tmp_path / "timm").config.activation == written
    said = {"keep": "only vitport's own record says gelu_tanh", "erf": "changed: activation gelu in place of"}
    assert said[choice] in " ".join(result.out.split())
    assert vitport("convert", google, tmp_path / "hf", "--to", "huggingface", "--activation", choice).code == 0
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["hidden_act"] == act


@pytest.mark.parametrize(
    ("options", "shape", "dtype"),
    [
        (["--head", "zero", "--classes", "4"], (4, 24), "F32"),
        (["--head", "drop"], None, "F32"),
        (["--head", "keep", "--classes", "4"], (7, 24), "F32"),
        (["--dtype", "float16"], (7, 24), "F16"),
        (["--dtype", "bfloat16"], (7, 24), "BF16"),
    ],
)
def test_head_and_type_are_what_was_asked_for(options, shape, dtype, weights, tmp_path, vitport):
    """Oracle: the header, read by the safetensors library; what was changed is printed."""
    result = vitport("convert", weights, tmp_path / "out", "--to", "timm", *options)
    assert result.code == 0, result.err
    with safe_open(tmp_path / "out", "np") as file:
        assert ("head.weight" in set(file.keys())) == (shape is not None)
        if shape is not None:
            assert tuple(file.get_slice("head.weight").get_shape()) == shape
        assert file.get_slice("cls_token").get_dtype() == dtype
    assert ("changed: " in result.out) == ("keep" not in options)


def test_another_number_of_classes_is_refused_until_the_head_is_spoken_of(weights, tmp_path, vitport):
    result = vitport("convert", weights, tmp_path / "out", "--to", "timm", "--classes", "4")
    assert result.code == 2
    assert "a head of 7 classes, not 4" in result.err
    assert not (tmp_path / "out").exists()


def test_patches_and_positions_are_changed_on_request(weights, tmp_path, vitport):
    """Oracle: the shapes that the config asks for; the arithmetic has tests of its own."""
    options = ("--patch-size", "2", "--positions", "patch", "--resize", "torch-bilinear")
    assert vitport("convert", weights, tmp_path / "out", "--to", "timm", *options).code == 0
    tensors = load_file(tmp_path / "out")
    assert tensors["patch_embed.proj.weight"].shape == (24, 3, 2, 2)
    assert tensors["pos_embed"].shape == (1, 6 * 10, 24)


def test_what_the_format_forgets_is_told(weights, tmp_path, vitport):
    options = ("--to", "google", "--activation", "tanh")
    result = vitport("convert", weights, tmp_path / "out.npz", *options)
    assert result.code == 0, result.err
    assert "not written: image_size=12x20 (readers take a square of whole patches)" in " ".join(result.out.split())


def test_a_verified_conversion_leaves_a_certificate(google, tmp_path, vitport):
    """Oracle: hashlib on both files, and the parity of float64, which rounding bounds."""
    target = tmp_path / "out.safetensors"
    result = vitport("convert", google, target, "--to", "timm", "--activation", "keep", "--verify")
    assert result.code == 0, result.err
    said = result.out.splitlines()
    assert said[-1] == f"certificate {target}.certificate.json"
    assert said[-2].startswith("verified: every block agrees with the source within rounding: at most ")
    proof = json.loads((tmp_path / "out.safetensors.certificate.json").read_text())
    assert proof["passed"] is True
    assert proof["source"]["files"] == {"google.npz": hashlib.sha256(google.read_bytes()).hexdigest()}
    assert proof["result"]["files"] == {"out.safetensors": hashlib.sha256(target.read_bytes()).hexdigest()}
    assert proof["origins"]["activation"] == "the convention of google"
    worst = [stage["relative"] for it in proof["comparisons"] if it["judged"] for stage in it["stages"].values()]
    assert max(worst) < 1e-12


def test_a_conversion_that_differs_ends_with_status_1(weights, tmp_path, vitport, monkeypatch):
    """The patch kernel's colours are turned around while it is written."""
    true = safetensors_file.write

    def wrong(path, table, checkpoint, progress):
        kernel = table["patch_embed.proj.weight"][:, ::-1]
        true(path, table.replacing("patch_embed.proj.weight", np.ascontiguousarray(kernel)), checkpoint, progress)

    monkeypatch.setitem(FORMATS, "timm", dataclasses.replace(FORMATS["timm"], writer=wrong))
    result = vitport(
        "convert", weights, tmp_path / "out", "--to", "timm", "--verify", "--certificate", tmp_path / "proof.json"
    )
    assert result.code == 1
    assert "not verified: the result by its own names in float64 differs from the source by its own names" in result.out
    assert "first at embed" in result.out
    assert json.loads((tmp_path / "proof.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--certificate", "c.json"], "needs --verify, which writes it"),
        (["--verify", "--image-size", "16"], "verify first, and change image_size (--image-size) then"),
        (["--verify", "--patch-size", "2"], "verify first, and change patch_size (--patch-size) then"),
    ],
)
def test_what_cannot_be_verified_is_one_sentence(options, words, weights, tmp_path, vitport):
    result = vitport("convert", weights, tmp_path / "out", "--to", "timm", *options)
    assert result.code == 2
    assert words in result.err
    assert not (tmp_path / "out").exists()
