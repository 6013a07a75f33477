"""`vitport train` and what follows a run, of a tiny Swin Transformer. Oracles: the run that nobody disturbed, the files
read by conversion itself, and the other framework."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import conversion
import vit_cli
from conversion.formats import FORMATS
from tests.vit_cli.training import environment, lines, same_bits, weights
from vit_cli.main import main
from vit_spec import VitportError

pytest.importorskip("sklearn")

WEIGHTS = Path(vit_cli.__file__).parent / "assets" / "digits_swin.safetensors"
DIGITS = (
    "--data", "digits", "--model.image-size", "16", "--model.patch-size", "2", "--model.in-channels", "1",
    "--data.augment.crop", "shift", "--data.augment.pad", "1", "--data.augment.flip", "0", "--batch", "32",
    "--recipe.schedule.peak", "3e-3", "--recipe.schedule.warmup", "2", "--log-every", "1",
)  # fmt: skip
SMALL = (
    "--model", "swin_tiny_patch4_window7_224", "--model.embed-dim", "8", "--model.depths", "2", "2",
    "--model.num-heads", "1", "2", "--model.window-sizes", "4", "--model.drop-rate", "0.1", "--model.drop-path-rate",
    "0.2", "--recipe.loss.mixup", "0.2", "--recipe.ema", "0.9", *DIGITS,
)  # fmt: skip
LENGTH = ("--steps", "12", "--keep.every", "3")


def arguments(workdir: Path, *options: str) -> list[str]:
    return ["train", "--workdir", str(workdir), *SMALL, *options]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("swin") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "vit_cli", *arguments(workdir, *LENGTH)], env=environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.mark.slow
def test_killed_three_times_a_run_ends_with_the_same_bits(finished, tmp_path) -> None:
    """By kill -9 at random moments, then to the end."""
    workdir, chance, deaths = tmp_path / "run", random.Random(1), 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-m", "vit_cli", *arguments(workdir, *LENGTH)], env=environment(),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                time.sleep(chance.uniform(0, 0.3))
                break
        process.kill()
        process.communicate()
        deaths += process.returncode == -signal.SIGKILL
    assert deaths >= 2
    train_in_new_process(workdir)
    for key in ("params", "ema"):
        assert same_bits(weights(workdir, key), weights(finished, key))
    assert lines(workdir) == lines(finished)


def train_in_new_process(workdir: Path) -> None:
    """With the devices and the flags of the runs that were killed."""
    done = subprocess.run(
        [sys.executable, "-m", "vit_cli", *arguments(workdir, *LENGTH)], env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("key", ["params", "ema"])
def test_a_run_is_exported_to_every_format_that_can_hold_it(key, finished, tmp_path) -> None:
    """Of all formats of the family; what one cannot hold it says in a sentence. Oracle: conversion's own reading, bit
    for bit, and both frameworks on the first and the last file."""
    expected, held = weights(finished, key), {}
    for name, found in FORMATS.items():
        if found.family == "swin":
            try:
                out = tmp_path / (name + (".pth" if "torchvision" in name else ""))
                conversion.convert(str(finished), str(out), to=name, weights_key=key)
            except VitportError as error:
                held[name] = str(error)
                continue
            table = conversion.load(out, model=conversion.load(finished).config).params
            assert same_bits({each: np.asarray(table[each]) for each in expected}, expected), name
            held[name] = ""
    refused = {name: why for name, why in held.items() if why}
    assert {name for name in held if name not in refused} >= {"timm-swin", "flax-swin", "huggingface-swin"}, refused
    assert all(len(why.splitlines()) == 1 for why in refused.values())


def test_the_carried_weights_are_the_presets_and_evaluate_as_promised(capsys) -> None:
    """Oracle: scikit-learn's labels."""
    from vit_jax.training.recipe.presets import get_preset
    from vit_spec import get_model

    assert main(["evaluate", str(WEIGHTS), "--data", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] >= 0.96
    options = get_preset("swin_digits").config.model
    told = ("image_size", "patch_size", "in_channels", "embed_dim", "depths", "num_heads", "window_sizes",
            "drop_path_rate")  # fmt: skip
    assert options.name is not None
    config = get_model(options.name).config.replace(
        pretrained_window_sizes=((0, 0),) * 2, num_classes=10, **{name: getattr(options, name) for name in told}
    )
    assert conversion.load(WEIGHTS).config == config


def test_rollout_is_refused_in_one_sentence(tmp_path, capsys) -> None:
    from PIL import Image

    Image.new("L", (16, 16)).save(tmp_path / "digit.png")
    paths = [str(tmp_path / name) for name in ("digit.png", "out.png")]
    assert main(["rollout", *paths, "--weights", str(WEIGHTS)]) == 2
    told = capsys.readouterr().err
    assert "have no attention rollout: it needs attention among all tokens" in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()
