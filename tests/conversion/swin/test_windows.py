"""Other windows and images for weights that exist, through ``convert`` and ``create_model``. Oracles: torch's bicubic
interpolation and tests/numpy_swin.py; for version 2 transformers' own class; timm's resizing is in tests/peer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import conversion
import vit_jax
import vit_torch
from tests import numpy_swin
from tests.conversion.swin.models import BASE, checkpoint, weights
from tests.conversion.swin.test_huggingface import V2, load
from tests.random_weights import random_images
from tests.vit_jax.models import nhwc, quick_jit
from vit_cli.main import main
from vit_spec import SwinConfig, VitportError

AXIS = BASE.replace(window_rule="axis")


def bicubic(table: np.ndarray, source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """Microsoft's ``load_pretrained``, on tables of windows that need not be square."""
    (S, U), (T, V) = ((2 * rows - 1, 2 * columns - 1) for rows, columns in (source, target))
    grid = torch.tensor(table).T.reshape(1, -1, S, U)
    resized = torch.nn.functional.interpolate(grid, size=(T, V), mode="bicubic")
    return resized.reshape(table.shape[1], -1).T.numpy()


def expected(config: SwinConfig, targets: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    """The weights, each stage's tables for its new window."""
    return {
        name: bicubic(array, (4, 4), targets[int(name.split(".")[1])]) if name.endswith("bias_table") else array
        for name, array in weights(config).items()
    }


@pytest.mark.parametrize(
    ("image", "windows", "targets"),
    [
        (32, ((5, 5), (2, 7)), [(5, 5), (2, 7)]),
        pytest.param(32, (8, (4, 2)), [(8, 8), (4, 2)], marks=pytest.mark.slow),
        pytest.param((24, 40), 5, [(5, 5), (5, 5)], marks=pytest.mark.slow),
        ((20, 44), ((3, 6), (6, 3)), [(3, 6), (5, 3)]),  # the second map is 5 x 11
    ],
)
def test_each_stage_gets_its_window_and_both_frameworks_compute_with_it(
    image: Any, windows: Any, targets: list[tuple[int, int]], tmp_path: Path
) -> None:
    """Measured: logits up to 5 are 9.8e-15 apart."""
    conversion.save(checkpoint(AXIS), tmp_path / "w.safetensors", format="timm")
    told: dict[str, Any] = {"weights": tmp_path / "w.safetensors", "image_size": image, "resize": "torch-bicubic"}
    per_stage = windows if isinstance(windows, tuple) else (windows, windows)
    params = expected(AXIS, targets)
    sized = conversion.with_sizes(
        conversion.load(tmp_path / "w.safetensors"), image_size=image, resize="torch-bicubic",
        window_size=tuple((side, side) if isinstance(side, int) else side for side in per_stage),
    )  # fmt: skip
    assert sized.config == AXIS.replace(image_size=image, window_sizes=per_stage)
    for name, array in params.items():
        np.testing.assert_allclose(sized.params[name], array, rtol=0, atol=1e-12, err_msg=name)
    images = random_images(sized.config, 2, 0)
    right = numpy_swin.forward(sized.config, params, images)
    model = vit_torch.create_model(**told, window_sizes=per_stage, dtype=torch.float64).eval()
    assert model.config == sized.config
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.tensor(images)).numpy(), right, rtol=0, atol=1e-12)
    with jax.enable_x64(True):
        other = vit_jax.create_model(**told, window_size=windows, dtype="float64", param_dtype="float64")
        other.eval()
        assert other.config == sized.config
        graphdef, state = nnx.split(other)
        found = quick_jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, nhwc(images))
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-12)


def test_version_2_computes_its_bias_for_the_new_window_by_the_old_offsets(tmp_path: Path) -> None:
    """Oracle: ``Swinv2ForImageClassification`` with the new window, pretrained with the old one.

    Measured 4.4e-16 of logits up to 1.1.
    """
    conversion.save(checkpoint(V2), tmp_path / "w.safetensors", format="timm")
    told: dict[str, Any] = {"weights": tmp_path / "w.safetensors", "image_size": 40, "window_size": 5}
    sized = conversion.with_sizes(conversion.load(tmp_path / "w.safetensors"), image_size=40, window_size=5)
    assert sized.config.pretrained_window_sizes == ((4, 4), (4, 4))
    assert all(np.array_equal(sized.params[name], array) for name, array in weights(V2).items())
    conversion.save(sized, tmp_path / "hf", format="huggingface")
    theirs, _ = load("Swinv2ForImageClassification", tmp_path / "hf")
    assert theirs.config.window_size == 5
    assert theirs.config.pretrained_window_sizes == [4, 4]
    images = random_images(sized.config, 2, 0)
    with torch.no_grad():
        right = theirs(torch.tensor(images)).logits.numpy()
        model = vit_torch.create_model(**told, dtype=torch.float64).eval()
        np.testing.assert_allclose(model(torch.tensor(images)).numpy(), right, rtol=0, atol=1e-12)


def test_the_command_takes_a_window_for_each_stage(tmp_path: Path, capsys) -> None:
    conversion.save(checkpoint(AXIS), tmp_path / "w.safetensors", format="timm")
    done = [str(tmp_path / "w.safetensors"), str(tmp_path / "out.safetensors"), "--to", "timm"]
    assert main(["convert", *done, "--window-size", "8,4x2", "--resize", "geometric-cubic"]) == 0
    assert conversion.load(tmp_path / "out.safetensors").config.window_sizes == ((8, 8), (4, 2))
    assert "windows of 8x8, 4x2 in place of 4x4, 4x4" in capsys.readouterr().out
    for words in (["8", "4"], ["8x4"]):  # a height and a width, of both stages
        assert main(["convert", *done, "--overwrite", "--window-size", *words]) == 0
        assert conversion.load(tmp_path / "out.safetensors").config.window_sizes == ((8, 4), (8, 4))
    capsys.readouterr()
    for words, sentence in ((["8,4,2"], "does not fit 2 stages"), (["8,x"], "--window-size"), (["0"], "at least 1")):
        assert main(["convert", *done, "--overwrite", "--window-size", *words]) == 2
        told = capsys.readouterr().err
        assert sentence in told
        assert len(told.splitlines()) == 1


def test_a_window_without_a_method_for_its_tables_is_named(tmp_path: Path) -> None:
    with pytest.raises(VitportError, match="resize='bilinear' resizes no table of relative positions"):
        conversion.with_sizes(checkpoint(AXIS), window_size=5, resize="bilinear")  # type: ignore[arg-type]
    with pytest.raises(VitportError, match="give image_size, patch_size or window_size with it"):
        conversion.with_sizes(checkpoint(AXIS), resize="torch-bicubic")
