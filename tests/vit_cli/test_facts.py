"""Facts by the options of every subcommand that reads weights. Oracle: the config that the weights were made for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.random_weights import random_params
from tests.vit_cli.conftest import TINY

CONFIG = TINY.replace(num_heads=6, norm_eps=1e-5, activation="quick_gelu", pool="avg")
FACTS = ("--heads", "6", "--eps", "1e-5", "--activation", "quick_gelu", "--pool", "avg", "--image-size", "12x20")


@pytest.fixture
def bare(tmp_path):
    save_file({name: array.astype(np.float32) for name, array in random_params(CONFIG, seed=0).items()}, tmp_path / "w")
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(
            tmp_path / "images" / label / "1.png"
        )
    return tmp_path / "w"


def test_inspect_and_convert(bare, vitport, tmp_path) -> None:
    shown = vitport("inspect", bare, *FACTS, "--json")
    assert json.loads(shown.out)["config"] == CONFIG.to_dict()
    for size in (("12x20",), ("12", "20")):
        done = vitport("convert", bare, tmp_path / "out", "--to", "timm", "--overwrite", *FACTS[:-1], *size)
        assert done.code == 0, done.err
        assert json.loads(vitport("inspect", tmp_path / "out", "--json").out)["config"] == CONFIG.to_dict()


def test_compare_predict_and_rollout(bare, vitport, tmp_path) -> None:
    image = tmp_path / "images" / "a" / "1.png"
    compared = vitport("compare", bare, *FACTS, "--json")
    assert compared.code == 0, compared.err
    assert vitport("predict", image, "--weights", bare, *FACTS).code == 0
    assert vitport("rollout", image, tmp_path / "seen.png", "--weights", bare, *FACTS).code == 0


def test_evaluate(bare, vitport, tmp_path) -> None:
    found = vitport("evaluate", bare, "--data", tmp_path / "images", "--split", "train", *FACTS)
    assert "does not say" not in found.err


@pytest.mark.parametrize("command", ["inspect", "compare", "convert"])
def test_what_contradicts_the_file_is_refused(command, bare, vitport, tmp_path) -> None:
    vitport("convert", bare, tmp_path / "told", "--to", "timm", *FACTS)
    rest = [tmp_path / "x", "--to", "timm"] if command == "convert" else []
    for option, value in (("--heads", "3"), ("--eps", "1e-6"), ("--pool", "token"), ("--activation", "relu")):
        refused = vitport(command, tmp_path / "told", *rest, option, value)
        assert refused.code == 2
        assert f"({option}) contradicts the file" in refused.err
    assert not (tmp_path / "x").exists()


def test_a_config_file(bare, vitport, tmp_path) -> None:
    (tmp_path / "model.json").write_text(CONFIG.to_json())
    shown = vitport("inspect", bare, "--config", tmp_path / "model.json", "--json")
    assert json.loads(shown.out)["config"] == CONFIG.to_dict()
