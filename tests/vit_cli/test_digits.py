"""The carried models read digits, in both frameworks. Oracle: scikit-learn's labels of digits they were not trained on.

`scripts/train_digits_vit.py` wrote the Vision Transformer; `vitport train --preset swin_digits` and `vitport convert
--to timm` wrote the Swin Transformer.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import conversion
import vit_cli
import vit_jax
import vit_torch
from conversion.images.image import normalize
from vit_cli.main import main
from vit_jax.training.data.images import evaluation_pixels
from vit_jax.training.data.record import Record

ROOT = Path(vit_cli.__file__).parents[1]
ASSETS = ROOT / "vit_cli" / "assets"
PROMISED = {"digits_vit": 0.98, "digits_swin": 0.96}
"""Measured: 99.2 % and 98.9 %."""


@pytest.fixture(params=PROMISED)
def name(request) -> str:
    return request.param


def held_out(weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """The 360 test digits as the model takes them, (360, H, W, 1), and their labels."""
    images, labels = load_digits(return_X_y=True)
    _, images, _, labels = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    pixels = (images.reshape(-1, 8, 8, 1) * 255 / 16).round().astype(np.uint8)
    preprocessing = conversion.load(weights).preprocessing
    sized = [evaluation_pixels(Record("digit", 0, image), preprocessing) for image in pixels]
    return np.stack([normalize(image, preprocessing) for image in sized]).astype(np.float32), labels


def torch_logits(weights: Path, images: np.ndarray) -> np.ndarray:
    model = vit_torch.create_model(weights=weights).eval()
    with torch.no_grad():
        return model(torch.tensor(images).permute(0, 3, 1, 2)).numpy()


def test_both_frameworks_read_the_held_out_digits(name):
    """Measured 7.7e-6 and 3.8e-6, of logits up to 4.9."""
    weights = ASSETS / f"{name}.safetensors"
    images, labels = held_out(weights)
    in_torch = torch_logits(weights, images)
    model = vit_jax.create_model(weights=weights)
    model.eval()
    in_jax = np.asarray(nnx.jit(model)(images))
    for logits in (in_torch, in_jax):
        assert (logits.argmax(1) == labels).mean() >= PROMISED[name]
    np.testing.assert_allclose(in_jax, in_torch, rtol=0, atol=2e-5)


def test_the_file_is_small_and_names_its_classes(name):
    """Under 300 KB, because every clone carries it."""
    weights = ASSETS / f"{name}.safetensors"
    assert weights.stat().st_size < 300_000
    assert conversion.load(weights).labels == tuple("0123456789")


@pytest.mark.slow
def test_the_script_trains_such_a_vit_anew(tmp_path, monkeypatch):
    """Half a minute on 2 CPU cores; the file is written elsewhere. Seeds 0 to 4 give 99.2 to 99.4 %."""
    script = runpy.run_path(str(ROOT / "scripts" / "train_digits_vit.py"))
    monkeypatch.setitem(script["main"].__globals__, "ASSETS", tmp_path / "assets")
    script["main"]()
    weights = tmp_path / "assets" / "digits_vit.safetensors"
    images, labels = held_out(weights)
    assert (torch_logits(weights, images).argmax(1) == labels).mean() >= PROMISED["digits_vit"]
    assert (tmp_path / "assets" / "digits.png").is_file()


@pytest.mark.slow
def test_the_preset_trains_such_a_swin_anew(tmp_path):
    """Two minutes on two cores."""
    assert main(["train", "--preset", "swin_digits", "--workdir", str(tmp_path / "run")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("accuracy", 0) for line in lines) >= PROMISED["digits_swin"]
