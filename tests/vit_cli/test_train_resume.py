"""A run that is interrupted ends with the very bits of one that is not. Oracle: the run that nobody disturbed.

Dropout, stochastic depth, mixup, random shifts and a moving average are all on. Where the devices differ in number,
sums are taken in another order: measured, after 12 steps in float32, losses 2.4e-7 and weights 2e-6 apart.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.vit_cli.training import command, environment, furthest, log, same_bits, train, weights
from vit_spec import VitportError

LENGTH = ("--steps", "12", "--keep.every", "3", "--log-every", "1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(workdir, *LENGTH)
    return workdir


def _copied(run: Path, into: Path, *, without: tuple[int, ...]) -> Path:
    """The run as it was before some of its checkpoints."""
    shutil.copytree(run, into)
    for step in without:
        shutil.rmtree(into / "checkpoints" / str(step))
    return into


def _checkpoints(workdir: Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints").iterdir()}


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(undisturbed, tmp_path) -> None:
    workdir = _copied(undisturbed, tmp_path / "run", without=(12,))
    told = train(workdir, *LENGTH)
    assert "going on from the checkpoint of step 9" in told
    for key in ("params", "ema"):
        assert same_bits(weights(workdir, key), weights(undisturbed, key))
    assert [line["step"] for line in log(workdir)] == list(range(1, 13))
    assert [line["loss"] for line in log(workdir)] == [line["loss"] for line in log(undisturbed)]


def test_a_run_without_options_goes_on_by_those_of_its_work_directory(undisturbed, tmp_path) -> None:
    from vit_cli.main import main

    workdir = _copied(undisturbed, tmp_path / "run", without=(12,))
    assert main(["train", "--workdir", str(workdir)]) == 0
    assert same_bits(weights(workdir), weights(undisturbed))


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_and_that_is_said(
    damage, undisturbed, tmp_path
) -> None:
    workdir = _copied(undisturbed, tmp_path / "run", without=())
    file = max((workdir / "checkpoints" / "12" / "params").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(VitportError, match="damaged"):
        weights(workdir)
    told = train(workdir, *LENGTH)
    assert "checkpoint 12 cannot be read" in told
    assert "going on from the checkpoint of step 9" in told
    assert same_bits(weights(workdir), weights(undisturbed))


def test_sigterm_saves_and_ends_with_its_own_status(tmp_path) -> None:
    """Of so many steps that the signal comes before the last."""
    straight, workdir = tmp_path / "straight", tmp_path / "run"
    options = ("--steps", "300", "--keep.every", "300", "--log-every", "1")
    train(straight, *options)
    process = subprocess.Popen(command(workdir, *options), env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 4/"):
            process.send_signal(signal.SIGTERM)
            break
    process.communicate()
    assert process.returncode == 75
    (stopped,) = (int(name) for name in _checkpoints(workdir))
    assert 4 <= stopped < 300
    train(workdir, *options)
    assert same_bits(weights(workdir), weights(straight))


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_run_ends_with_the_same_bits(kills, tmp_path) -> None:
    options = ("--steps", "16" if kills < 10 else "200", "--keep.every", "2", "--log-every", "1")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train(straight, *options)
    chance = random.Random(kills)
    deaths = 0
    for _ in range(kills):
        process = subprocess.Popen(command(killed, *options), env=environment(), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                time.sleep(chance.uniform(0, 0.5))
                break
        process.kill()
        process.communicate()
        deaths += process.returncode == -signal.SIGKILL
    assert deaths >= kills - 1  # the last may come after the end
    train(killed, *options)
    for key in ("params", "ema"):
        assert same_bits(weights(killed, key), weights(straight, key))
    assert [line["step"] for line in log(killed)] == list(range(1, int(options[1]) + 1))
    assert [line["loss"] for line in log(killed)] == [line["loss"] for line in log(straight)]


def test_a_run_begun_on_eight_devices_goes_on_on_two(undisturbed, tmp_path) -> None:
    workdir = tmp_path / "run"
    train(workdir, *LENGTH, "--mesh", "data=2,fsdp=2,tensor=2", devices=8)
    shutil.rmtree(workdir / "checkpoints" / "12")
    told = train(workdir, *LENGTH, "--mesh", "data=1,fsdp=2,tensor=1", devices=2)
    assert "going on from the checkpoint of step 9" in told
    assert furthest(weights(workdir), weights(undisturbed)) < 2e-5
    losses = zip(log(workdir), log(undisturbed), strict=True)
    assert max(abs(mine["loss"] - theirs["loss"]) for mine, theirs in losses) < 2e-6


def test_a_work_directory_of_another_model_is_refused(undisturbed, tmp_path) -> None:
    workdir = _copied(undisturbed, tmp_path / "run", without=())
    told = train(workdir, *LENGTH, "--model.depth", "3", expect=2)
    assert "holds a run of another model (depth 2 instead of 3)" in told
    assert len(told.splitlines()) <= 2
    assert _checkpoints(workdir) == _checkpoints(undisturbed)
