"""``vitport predict`` against the model called directly and against scikit-learn's labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import conversion
import vit_cli
import vit_torch
from conversion import load_image
from tests.vit_cli.conftest import LABELS, tiny_checkpoint

ASSETS = Path(vit_cli.__file__).parent / "assets"


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_classes_are_the_model_s_likeliest_first(framework, weights, image, vitport):
    """Oracle: vit_torch, and torch's own softmax and sort; probabilities within 1e-5."""
    args = ("--weights", weights, "--framework", framework, "--top", "4", "--json")
    rows = json.loads(vitport("predict", image, *args).out)["top"]
    pixels = load_image(image, tiny_checkpoint().preprocessing)
    with torch.no_grad():
        logits = vit_torch.create_model(weights=weights).eval()(torch.tensor(pixels).permute(2, 0, 1)[None])[0]
    order = logits.argsort(descending=True)[:4].tolist()
    assert [row["class"] for row in rows] == order
    assert [row["label"] for row in rows] == [LABELS[at] for at in order]
    for row in rows:
        assert row["probability"] == pytest.approx(float(logits.softmax(0)[row["class"]]), abs=1e-5)
        assert row["logit"] == pytest.approx(float(logits[row["class"]]), abs=1e-5)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_carried_digit_is_read(framework, vitport):
    """Oracle: scikit-learn's label of the very image, found again among its 1,797."""
    grey = torch.tensor(np.asarray(Image.open(ASSETS / "digits.png")).reshape(64), dtype=torch.float64)
    images, labels = load_digits(return_X_y=True)
    (at,) = ((torch.tensor(images) * 255 / 16).round() == grey).all(dim=1).nonzero()[:, 0].tolist()
    args = ("--weights", ASSETS / "digits_vit.safetensors", "--framework", framework)
    rows = json.loads(vitport("predict", ASSETS / "digits.png", *args, "--json").out)["top"]
    assert rows[0]["label"] == str(labels[at])
    first = vitport("predict", ASSETS / "digits.png", *args).out.splitlines()[3]
    assert first.split()[:2] == [str(labels[at]), str(labels[at])]


def test_more_classes_than_there_are_means_all(weights, image, vitport):
    """Seven classes; their probabilities sum to one."""
    rows = json.loads(vitport("predict", image, "--weights", weights, "--top", "100", "--json").out)["top"]
    assert len(rows) == 7
    assert sum(row["probability"] for row in rows) == pytest.approx(1)


def test_a_model_without_a_head_says_so(headless, image, vitport):
    """Exit 2, and what can be done instead."""
    result = vitport("predict", image, "--weights", headless)
    assert result.code == 2
    assert "has no head" in result.err
    assert "forward_features" in result.err


def test_top_of_nothing_is_refused(weights, image, vitport):
    """--top 0."""
    assert vitport("predict", image, "--weights", weights, "--top", "0").code == 2


def test_jax_needs_no_torch(weights, image, vitport, monkeypatch):
    """PyTorch's import fails: --framework jax still answers, --framework torch tells what to install."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert vitport("predict", image, "--weights", weights, "--framework", "jax").code == 0
    result = vitport("predict", image, "--weights", weights, "--framework", "torch")
    assert (result.code, "vitport[torch]" in result.err) == (2, True)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five digits, one of them in a folder below, and a file that is no image."""
    images, _ = load_digits(return_X_y=True)
    (tmp_path / "d" / "below").mkdir(parents=True)
    for at in range(5):
        path = tmp_path / "d" / ("below" if at == 3 else ".") / f"{at}.png"
        Image.fromarray((images[at] * 255 / 16).round().astype(np.uint8).reshape(8, 8)).save(path)
    (tmp_path / "d" / "2x.png").write_bytes(b"no image")
    return tmp_path / "d"


def test_a_folder_is_predicted_as_its_images_are(folder, vitport, tmp_path):
    """Oracle: vit_torch, image by image; batches of 2 leave a part of one, and one file cannot be read."""
    weights = ASSETS / "digits_vit.safetensors"
    args = ("--weights", weights, "--batch", "2", "--top", "2")
    table = tmp_path / "out.csv"
    said = vitport("predict", folder, *args, "--predictions", table)
    assert "wrote" in said.out
    assert "images/s after the first batch" in said.out
    assert "skipped" in said.err
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert rows[0] == ["image", "predicted", "probability", "predicted_2", "probability_2"]
    names = ["0.png", "1.png", "2.png", "2x.png", "4.png", "below/3.png"]
    assert [row[0] for row in rows[1:]] == [str(folder / name) for name in names]
    assert rows[4][1:] == ["", "", "", ""]
    found = json.loads(vitport("predict", folder, *args, "--json").out)["images"]
    checkpoint = conversion.load(weights)
    model = vit_torch.create_model(weights=weights).eval()
    for row, one in zip(rows[1:], found, strict=True):
        if row[1]:
            pixels = load_image(row[0], checkpoint.preprocessing)
            with torch.no_grad():
                odds = model(torch.tensor(pixels).permute(2, 0, 1)[None])[0].softmax(0)
            assert row[1::2] == [str(at) for at in odds.argsort(descending=True)[:2].tolist()]
            assert float(row[2]) == pytest.approx(float(odds.max()), abs=2e-5)  # float32 in another order
            assert one["top"][0]["probability"] == pytest.approx(float(odds.max()), abs=2e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--framework", "torch"), "runs one image"), (("--batch", "0"), "--batch must be 1 or more")],
)
def test_a_folder_needs_options_that_go_with_it(options, message, folder, vitport):
    done = vitport("predict", folder, "--weights", ASSETS / "digits_vit.safetensors", *options)
    assert done.code == 2
    assert message in done.err
