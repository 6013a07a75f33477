"""The carried ViT reads digits, in both frameworks. Oracle: scikit-learn's labels of digits it was not trained on."""

from __future__ import annotations

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

ROOT = Path(vit_cli.__file__).parents[1]
WEIGHTS = ROOT / "vit_cli" / "assets" / "digits_vit.safetensors"


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    """The 360 test digits as the model takes them, (360, 8, 8, 1), and their labels."""
    images, labels = load_digits(return_X_y=True)
    _, images, _, labels = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    pixels = (images.reshape(-1, 8, 8, 1) * 255 / 16).round()
    preprocessing = conversion.load(WEIGHTS).preprocessing
    return np.stack([normalize(image, preprocessing) for image in pixels]), labels


def test_torch_reads_the_held_out_digits(held_out):
    """99.2 % measured; 98 % promised."""
    images, labels = held_out
    model = vit_torch.create_model(weights=WEIGHTS).eval()
    with torch.no_grad():
        logits = model(torch.tensor(images).permute(0, 3, 1, 2))
    assert (logits.argmax(1).numpy() == labels).mean() >= 0.98


def test_jax_reads_the_held_out_digits(held_out):
    """99.2 % measured; 98 % promised."""
    images, labels = held_out
    model = vit_jax.create_model(weights=WEIGHTS)
    model.eval()
    assert (np.asarray(nnx.jit(model)(images)).argmax(1) == labels).mean() >= 0.98


def test_file_is_small_and_names_its_classes():
    """Under 300 KB, because every clone carries it."""
    assert WEIGHTS.stat().st_size < 300_000
    assert conversion.load(WEIGHTS).labels == tuple("0123456789")


@pytest.mark.slow
def test_the_script_trains_such_a_model_anew(tmp_path, monkeypatch, held_out):
    """Half a minute on 2 CPU cores; the file is written elsewhere. Seeds 0 to 4 give 99.2 to 99.4 %."""
    script = runpy.run_path(str(ROOT / "scripts" / "train_digits_vit.py"))
    monkeypatch.setitem(script["main"].__globals__, "ASSETS", tmp_path / "assets")
    script["main"]()
    images, labels = held_out
    model = vit_torch.create_model(weights=tmp_path / "assets" / "digits_vit.safetensors").eval()
    with torch.no_grad():
        logits = model(torch.tensor(images).permute(0, 3, 1, 2))
    assert (logits.argmax(1).numpy() == labels).mean() >= 0.98
    assert (tmp_path / "assets" / "digits.png").is_file()
