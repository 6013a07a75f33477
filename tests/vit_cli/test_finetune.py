"""`vitport train --weights W --data D` and nothing else. Oracles: logarithms of the number of classes, the weights that
were given, and counts."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import conversion
import vit_cli
from tests.random_weights import random_params
from tests.vit_cli.training import log, weights
from vit_cli.main import main
from vit_jax.training.recipe.finetuning import FINETUNE
from vit_spec import ViTConfig

pytest.importorskip("sklearn")

ASSETS = Path(vit_cli.__file__).parent / "assets"
BOTH = [ASSETS / "digits_vit.safetensors", ASSETS / "digits_swin.safetensors"]
SWIN_SLOW = [BOTH[0], pytest.param(BOTH[1], marks=pytest.mark.slow)]
STILL = ("--recipe.schedule.peak", "1e-12", "--recipe.schedule.warmup", "0")
"""A learning rate of next to nothing changes next to nothing."""


@pytest.fixture(scope="module")
def marks(tmp_path_factory) -> Path:
    """Horizontal, vertical and diagonal lines, 24 and 9 of each; oblong, grey."""
    root, rng = tmp_path_factory.mktemp("marks"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 9)):
        for name in ("across", "down", "slanted"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels, at = rng.integers(0, 60, (12, 16)).astype(np.uint8), int(rng.integers(2, 9))
                if name == "across":
                    pixels[at : at + 2] = 255
                elif name == "down":
                    pixels[:, at + 2 : at + 4] = 255
                else:
                    for row in range(12):
                        pixels[row, row + at % 4 : row + at % 4 + 2] = 255
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def _train(workdir: Path, *options: object) -> int:
    return main(["train", "--workdir", str(workdir), *map(str, options)])


@pytest.mark.parametrize("given", BOTH, ids=["vit", "swin"])
def test_a_new_head_starts_at_zero_and_the_rest_with_the_weights(given, marks, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    assert _train(run, "--weights", given, "--data", marks, *STILL, "--steps", "1") == 0
    assert "a new head of 3 classes, which starts at zero, reads" in capsys.readouterr().out
    assert log(run)[0]["loss"] == pytest.approx(math.log(3), abs=1e-6)
    assert log(run)[0]["gradient_norm"] > 0
    before, after = conversion.load(given).params, weights(run)
    heads = {name for name in after if name.startswith("head")}
    assert max(np.abs(after[name]).max() for name in heads) < 1e-10
    assert all(np.abs(after[name] - before[name]).max() < 1e-9 for name in after.keys() - heads)


@pytest.mark.parametrize("given", SWIN_SLOW, ids=["vit", "swin"])
def test_without_any_option_it_learns(given, marks, tmp_path, capsys) -> None:
    """Lines of three directions, from weights for digits. Measured: 100 % and 100 %; chance is 33 %."""
    assert _train(tmp_path / "run", "--weights", given, "--data", marks) == 0
    told = capsys.readouterr().out
    assert "adamw at 0.000" in told
    assert "10 times that for the head, layer decay 0.75" in told
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["batch"], config["epochs"]) == (FINETUNE.batch, FINETUNE.epochs)
    evaluations = log(tmp_path / "run", "validation")
    assert [line["step"] for line in evaluations] == [*range(3, 24, 3), 23]  # one an epoch of 72 images
    assert evaluations[-1]["accuracy"] > 0.8


@pytest.mark.parametrize("given", SWIN_SLOW, ids=["vit", "swin"])
def test_a_linear_probe_changes_the_head_alone(given, marks, tmp_path) -> None:
    run = tmp_path / "run"
    assert _train(run, "--weights", given, "--data", marks, "--preset", "linear_probe", "--epochs", "8") == 0
    before, after = conversion.load(given).params, weights(run)
    changed = {name for name in after if name not in before or not np.array_equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith("head")}  # of three classes now
    assert log(run, "validation")[-1]["accuracy"] > 0.6


def test_what_is_frozen_by_pattern_stays(marks, tmp_path) -> None:
    frozen = ("--freeze", "patch_embed", "blocks.[0-2]", "*/bias")
    assert _train(tmp_path / "run", "--weights", BOTH[0], "--data", marks, "--steps", "3", *frozen,
                  "--recipe.schedule.warmup", "0") == 0  # fmt: skip
    before, after = conversion.load(BOTH[0]).params, weights(tmp_path / "run")
    same = {name for name in after if name in before and np.array_equal(after[name], before[name])}
    expected = {name for name in after if name.startswith(("patch_embed", "blocks.0", "blocks.1", "blocks.2"))
                or name.endswith("bias")}  # fmt: skip
    assert same == expected - {"head.bias"}  # which is zero now


def test_the_head_of_the_same_classes_stays_and_may_go(tmp_path, capsys) -> None:
    options = ("--weights", BOTH[0], "--data", "digits", *STILL, "--steps", "1")
    assert _train(tmp_path / "kept", *options) == 0
    assert "keeps the weights' head of 10 classes; --model.head new starts another" in capsys.readouterr().out
    assert log(tmp_path / "kept", "validation")[0]["accuracy"] > 0.95
    assert _train(tmp_path / "new", *options, "--model.head", "new") == 0
    assert log(tmp_path / "new")[0]["loss"] == pytest.approx(math.log(10), abs=1e-6)


def test_weights_for_large_images_are_trained_at_224_pixels(marks, tmp_path, capsys) -> None:
    config = ViTConfig(image_size=(448, 896), patch_size=56, embed_dim=16, depth=1, num_heads=2, num_classes=0)
    path = tmp_path / "large.safetensors"
    conversion.save(conversion.Checkpoint.of(config, random_params(config, 0, dtype=np.float32)), path, format="timm")
    options = ("--weights", path, "--data", marks, "--steps", "1", "--batch", "8")
    assert _train(tmp_path / "run", *options) == 0
    told = capsys.readouterr().out
    assert "trains on images of 224x448 pixels, where the weights are for 448x896, which cost 4 times as much" in told
    assert conversion.load(tmp_path / "run").config.image_size == (224, 448)
    assert _train(tmp_path / "own", *options, "--model.image-size", "448", "896") == 0
    assert "pixels, where the weights" not in capsys.readouterr().out


def test_a_file_that_gives_weights_fine_tunes_too(marks, tmp_path) -> None:
    (tmp_path / "run.yaml").write_text(f"model: {{weights: {BOTH[0]}}}\ndata: {{path: {marks}}}\nsteps: 2\n")
    assert _train(tmp_path / "run", "--config", tmp_path / "run.yaml") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["batch"], config["steps"], config["recipe"]["optimizer"]["layer_decay"]) == (32, 2, 0.75)


def test_patience_ends_a_run_that_gets_no_better(marks, tmp_path, capsys) -> None:
    """At a learning rate of next to nothing each evaluation is the first one again."""
    run = tmp_path / "run"
    options = ("--weights", BOTH[0], "--data", marks, *STILL, "--keep.patience", "2", "--keep.evaluate", "2")
    assert _train(run, *options) == 0
    told = capsys.readouterr().out
    assert "ended early, after 6 steps" in told
    assert re.search(r"none of the last 2 evaluations found more than \d+\.\d\d%; checkpoints/6 has it", told)
    assert (run / "checkpoints" / "6").is_dir()
    assert (run / "curves.png").is_file()
    assert _train(run) == 0
    assert "ended early, after 6 steps" in capsys.readouterr().out
    assert _train(run, "--keep.patience", "3") == 0
    assert "ended early, after 8 steps" in capsys.readouterr().out
    (tmp_path / "only").symlink_to(marks / "train")
    assert _train(tmp_path / "other", "--weights", BOTH[0], "--data", tmp_path / "only", "--keep.patience", "2") == 2
    assert "keep.patience=2 compares evaluations, and" in capsys.readouterr().err


def test_other_data_start_a_new_run_from_the_checkpoints_weights(marks, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    assert _train(run, "--weights", BOTH[0], "--data", marks, "--steps", "1") == 0
    capsys.readouterr()
    assert _train(run, "--data", "digits") == 2
    told = capsys.readouterr().err
    assert f"start a new run from its weights: --weights {run} --workdir ANOTHER" in told
    assert len(told.splitlines()) == 1
    assert _train(tmp_path / "another", "--weights", run, "--data", "digits", "--steps", "1") == 0
    assert "a new head of 10 classes" in capsys.readouterr().out


def test_a_rising_loss_is_told_while_the_run_goes_on(marks, tmp_path, capsys) -> None:
    options = ("--weights", BOTH[0], "--data", marks, "--log-every", "1", "--recipe.optimizer.clip-norm", "None")
    assert _train(tmp_path / "run", *options, "--recipe.schedule.peak", "3", "--steps", "12") == 0
    told = capsys.readouterr().out
    assert "the loss rises, from about" in told
    assert "lower --recipe.schedule.peak (the rate is" in told


def test_weights_of_classes_are_counted_and_small_classes_repeated(marks, tmp_path, capsys) -> None:
    """24 of each class, of which the holdout takes a quarter."""
    (tmp_path / "only").symlink_to(marks / "train")
    options = ("--weights", BOTH[0], "--data", tmp_path / "only", "--data.holdout", "0.25", "--steps", "2")
    balance = ("--recipe.loss.class-weights", "balanced", "--data.balanced")
    assert _train(tmp_path / "run", *options, *balance) == 0
    assert "54 training images, 18 validation images" in capsys.readouterr().out
    evaluated = ("evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "only"), "--json", "--holdout", "0.25")
    assert main(list(evaluated)) == 0
    found, last = json.loads(capsys.readouterr().out), log(tmp_path / "run", "validation")[-1]
    assert (found["images"], found["loss"]) == (18, pytest.approx(last["loss"], abs=1e-6))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["loss"]["class_weights"] == [1.0, 1.0, 1.0]
    assert _train(tmp_path / "run", "--steps", "3") == 0
    assert "resuming from the checkpoint of step 2" in capsys.readouterr().out
    assert _train(tmp_path / "other", *options, "--recipe.loss.class-weights", "1", "2") == 2
    assert "has 2 numbers, and the data have 3 classes" in capsys.readouterr().err


def test_a_dry_run_counts_what_is_trained(marks, tmp_path, capsys) -> None:
    """The head of 3 classes on 32 channels has 99 parameters; its gradients have 4 bytes each, Adam's moments 8."""
    options = ("--weights", BOTH[0], "--data", marks, "--preset", "linear_probe", "--dry-run")
    assert _train(tmp_path / "run", *options) == 0
    told = capsys.readouterr().out
    assert "trained parameters: 99\n" in told
    assert "memory per device, gradients: 0.4 kB\n" in told
    assert "memory per device, optimizer: 0.8 kB\n" in told
    assert not (tmp_path / "run").exists()
