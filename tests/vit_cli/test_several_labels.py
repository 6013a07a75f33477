"""Images of several labels each, from the command. Oracles: scikit-learn, transformers, and what the tests drew."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import conversion
import vit_cli
from vit_cli.main import main
from vit_jax.training.run.log import read_lines

metrics = pytest.importorskip("sklearn.metrics")

WEIGHTS = Path(vit_cli.__file__).parent / "assets" / "digits_vit.safetensors"
NAMES = ("across", "corner", "down")


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> Path:
    """Oblong images with a horizontal and a vertical line and a grey corner, each or none; two tables say which."""
    root, rng = tmp_path_factory.mktemp("lines"), np.random.default_rng(0)
    (root / "images").mkdir()
    rows = []
    for number in range(120):
        pixels, there = rng.integers(0, 60, (12, 16)).astype(np.uint8), rng.random(3) < (0.5, 0.3, 0.5)
        at = int(rng.integers(5, 9))
        if there[0]:
            pixels[at : at + 2] = 255
        if there[2]:
            pixels[:, at + 2 : at + 4] = 255
        if there[1]:
            pixels[:4, :4] = 180
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        rows.append((f"{number}.png", there.astype(int)))
    with (root / "bars.csv").open("w") as bars, (root / "columns.csv").open("w") as columns:
        csv.writer(columns).writerows([("image", *NAMES), *((name, *there) for name, there in rows)])
        texts = ("|".join(one for one, has in zip(NAMES, there, strict=True) if has) for _, there in rows)
        csv.writer(bars).writerows([("image", "tags"), *zip((name for name, _ in rows), texts, strict=True)])
    return root


@pytest.fixture(scope="module")
def run(lines, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("several") / "run"
    given = (
        "--weights",
        WEIGHTS,
        "--data",
        lines,
        "--data.labels",
        "bars.csv",
        "--data.holdout",
        "0.25",
        "--epochs",
        "4",
    )
    assert main(["train", "--workdir", str(folder), *map(str, given), "--keep.patience", "9"]) == 0
    return folder


def test_a_run_learns_them_without_another_option(run) -> None:
    found = [line["mean_average_precision"] for line in read_lines(run) if line["of"] == "validation"]
    assert found[-1] > found[0]
    assert found[-1] > 0.75  # measured 0.93; chance is the share of images that have a label, 0.3 to 0.5
    assert json.loads((run / "config.json").read_text())["recipe"]["loss"]["name"] == "sigmoid"
    assert (run / "curves.png").is_file()
    assert not (run / "confusion.png").exists()
    assert conversion.load(run).several_labels


def test_evaluation_gives_mean_average_precision_and_a_table(run, lines, tmp_path, capsys) -> None:
    table = tmp_path / "out.csv"
    options = (
        "--data",
        lines,
        "--labels",
        "columns.csv",
        "--split",
        "train",
        "--per-class",
        "--json",
        "--predictions",
        table,
    )
    assert main(["evaluate", str(run), *map(str, options)]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == found["images"] == 120
    truth = list(csv.DictReader((lines / "columns.csv").open()))
    labels = np.array([[int(row[name]) for name in NAMES] for row in truth])
    odds = np.array([[float(row[name]) for name in NAMES] for row in rows])
    each = metrics.average_precision_score(labels, odds, average=None)
    # Equal to 1e-12 here; images whose probabilities are the same in the table's six digits would tie in it alone.
    assert [found["per_class"][name] for name in NAMES] == pytest.approx(each, abs=1e-3)
    assert found["mean_average_precision"] == pytest.approx(each.mean(), abs=1e-3)
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, odds >= 0.5, average="micro"), rel=1e-9)
    for row, marks, own in zip(rows, labels, odds, strict=True):
        assert row["label"] == "|".join(np.array(NAMES)[marks > 0])
        assert row["predicted"] == "|".join(np.array(NAMES)[own >= 0.5])


def test_a_prediction_gives_each_class_a_probability_of_its_own(run, lines, tmp_path, capsys) -> None:
    assert main(["predict", str(lines / "images" / "3.png"), "--weights", str(run), "--json"]) == 0
    for row in json.loads(capsys.readouterr().out)["top"]:
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-row["logit"])), rel=1e-9)


def test_other_formats_keep_it(run, tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    assert main(["convert", str(run), str(tmp_path / "hf"), "--to", "huggingface-vit"]) == 0
    assert transformers.AutoConfig.from_pretrained(tmp_path / "hf").problem_type == "multi_label_classification"
    (tmp_path / "hf" / "vitport.json").unlink(missing_ok=True)  # what config.json alone says
    assert conversion.load(tmp_path / "hf").several_labels
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "x.safetensors"), "--to", "timm"]) == 0
    assert conversion.load(tmp_path / "x.safetensors").several_labels


REFUSED = {
    "balanced": (("--data.balanced",), "data.balanced is for one label an image"),
    "class weights": (("--recipe.loss.class-weights", "balanced"), "class_weights=balanced is for one label an image"),
    "distillation": (
        ("--recipe.loss.distillation", "hard", "--teacher.weights", str(WEIGHTS)),
        "distillation is for one label an image",
    ),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_is_for_one_label_is_refused(what, lines, tmp_path, capsys) -> None:
    options, message = REFUSED[what]
    given = ("--weights", str(WEIGHTS), "--data", str(lines), "--data.labels", "columns.csv", *options)
    assert main(["train", "--workdir", str(tmp_path / "run"), *given]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_neighbours_are_refused(run, lines, capsys) -> None:
    options = ("--data", str(lines), "--labels", "columns.csv", "--holdout", "0.25", "--knn", "3")
    assert main(["evaluate", str(run), *options]) == 2
    assert "are for one label an image" in capsys.readouterr().err
