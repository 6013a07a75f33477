"""Small runs of `vitport train` in processes of their own."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import conversion
from tests.simulated import simulated

ROOT = Path(__file__).parents[2]
_REST = (
    "--data", "digits", "--model.in-channels", "1", "--model.drop-rate", "0.1", "--model.drop-path-rate", "0.2",
    "--data.augment.crop", "shift", "--data.augment.pad", "1", "--data.augment.flip", "0", "--batch", "32",
    "--recipe.loss.mixup", "0.2", "--recipe.ema", "0.9", "--recipe.schedule.peak", "3e-3", "--recipe.schedule.warmup",
    "2",
)  # fmt: skip
SMALL = (
    "--model", "vit_tiny_patch16_224", "--model.image-size", "8", "--model.patch-size", "4", "--model.embed-dim", "16",
    "--model.depth", "2", "--model.num-heads", "2", *_REST,
)  # fmt: skip
"""A model and a recipe with all that is random on."""
_SWIN = (
    "--model.image-size", "16", "--model.patch-size", "2", "--model.embed-dim", "8", "--model.depths", "2", "2",
    "--model.num-heads", "1", "2", "--model.window-sizes", "4", *_REST,
)  # fmt: skip
SMALL_SWIN = {
    1: ("--model", "swin_tiny_patch4_window7_224", *_SWIN), 2: ("--model", "swinv2_tiny_window8_256", *_SWIN)
}  # fmt: skip
"""The same of either version of the Swin Transformer: windows of 4 on maps of 8 x 8, shifted, and 4 x 4."""
LENGTH = ("--steps", "12", "--keep.every", "3", "--log-every", "1")
"""Of the run that nobody disturbs."""


def arguments(workdir: Path | str, *options: str, small: Sequence[str] = SMALL) -> list[str]:
    """Of the command, which `vit_cli.main.main` takes in this process."""
    return ["train", "--workdir", str(workdir), *small, *options]


def command(workdir: Path, *options: str, small: Sequence[str] = SMALL) -> list[str]:
    return [sys.executable, "-m", "vit_cli", *arguments(workdir, *options, small=small)]


def environment(devices: int = 1, *flags: str) -> dict[str, str]:
    return simulated(devices, *flags) | {"PYTHONPATH": str(ROOT)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_two(
    asked: Sequence[str],
    *,
    program: Sequence[str] = ("-m", "vit_cli.main"),
    own: Sequence[Mapping[str, str]] = ({}, {}),
) -> list[subprocess.Popen[str]]:
    """Two processes of one run, with four devices each.

    Args:
        own: variables of each.
    """
    meeting = ("--processes.coordinator", f"127.0.0.1:{free_port()}", "--processes.count", "2")
    return [
        subprocess.Popen(
            [sys.executable, *program, *asked, *meeting, "--processes.index", str(index)],
            env=environment(4) | dict(variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index, variables in enumerate(own)
    ]  # fmt: skip


def train(workdir: Path, *options: str, devices: int = 1, expect: int = 0, small: Sequence[str] = SMALL) -> str:
    """What the command prints."""
    done = subprocess.run(
        command(workdir, *options, small=small), env=environment(devices), capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def weights(path: Path | str, key: str = "params") -> dict[str, np.ndarray]:
    """Every tensor of the newest checkpoint, or of one."""
    table = conversion.load(path, weights_key=key).params
    return {name: np.asarray(table[name]) for name in table}


def same_bits(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and first[name].tobytes() == second[name].tobytes() for name in first
    )


def check_killed(
    workdir: Path, straight: Path, options: tuple[str, ...], seed: int, kills: int, small: Sequence[str] = SMALL
) -> None:
    """A run that is killed by kill -9 at random moments, and then let go on, ends with the bits of ``straight``.

    Each line of the log has the loss of its own images: none is seen twice or missed, or a loss would differ.
    """
    chance = random.Random(seed)
    deaths = 0
    for _ in range(kills):
        process = subprocess.Popen(
            command(workdir, *options, small=small), env=environment(), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                time.sleep(chance.uniform(0, 0.5))
                break
        process.kill()
        process.communicate()
        deaths += process.returncode == -signal.SIGKILL
    assert deaths >= kills - 1  # the last may come after the end
    train(workdir, *options, small=small)  # in a process of its own, with the flags of those that were killed
    for key in ("params", "ema"):
        assert same_bits(weights(workdir, key), weights(straight, key))
    assert lines(workdir) == lines(straight)
    assert not (workdir / "owner.json").exists()


def furthest(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


SPEED = ("images_per_second", "teraflops", "mfu", "data_wait", "seconds_left")
"""Fields of the log that depend on time."""


def lines(workdir: Path) -> list[dict[str, float]]:
    """The whole log, in order, beside what depends on time."""
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in SPEED} for line in found]


def log(workdir: Path, of: str = "train") -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["of"] == of]
