"""A run that is interrupted ends with the very bits of one that is not. Oracle: the run that nobody disturbed.

Dropout, stochastic depth, mixup, random shifts and a moving average are all on. Where the devices differ in number,
sums are taken in another order: measured, after 12 steps in float32, losses 2.4e-7 and weights 2e-6 apart.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from conversion.containers.checksums import check_checksums
from conversion.store import Objects, put
from tests.stores import running
from tests.vit_cli.training import (
    LENGTH,
    arguments,
    check_killed,
    command,
    environment,
    furthest,
    lines,
    log,
    same_bits,
    train,
    weights,
)
from tests.vit_jax.training.data.folders import image_folder
from vit_cli.main import main
from vit_jax.training.data import Batch, Stream
from vit_jax.training.run.keeping import PARTS
from vit_jax.training.run.mirror import Mirror
from vit_jax.training.run.monitor import Line
from vit_jax.training.run.setup import Setup
from vit_spec import VitportError


def _copied(run: Path, into: Path, *, without: tuple[int, ...]) -> Path:
    """The run as it was before some of its checkpoints."""
    shutil.copytree(run, into)
    for step in without:
        shutil.rmtree(into / "checkpoints" / str(step))
    return into


def _checkpoints(workdir: Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints").iterdir()}


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(undisturbed, tmp_path, capsys) -> None:
    workdir = _copied(undisturbed, tmp_path / "run", without=(12,))
    assert main(arguments(workdir, *LENGTH)) == 0
    told = capsys.readouterr().out
    assert "resuming from the checkpoint of step 9" in told
    for key in ("params", "ema"):
        assert same_bits(weights(workdir, key), weights(undisturbed, key))
    assert lines(workdir) == lines(undisturbed)


def test_a_run_without_options_goes_on_by_those_of_its_work_directory(undisturbed, tmp_path) -> None:
    workdir = _copied(undisturbed, tmp_path / "run", without=(12,))
    assert main(["train", "--workdir", str(workdir)]) == 0
    assert same_bits(weights(workdir), weights(undisturbed))
    before = _checkpoints(workdir)
    assert main(["train", "--workdir", str(workdir)]) == 0  # at its end there is nothing left to do
    assert _checkpoints(workdir) == before


def test_a_run_begun_with_a_flag_goes_on_by_the_same_command(undisturbed, tmp_path) -> None:
    """Its options are the defaults then, and the flag says what is so already; or that it is no longer."""
    workdir = _copied(undisturbed, tmp_path / "run", without=())
    options = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(options | {"scan": True}))
    for flag in ("--scan", "--no-scan"):
        assert main(arguments(workdir, *LENGTH, flag, "--dry-run")) == 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "lost", "another shape"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_and_that_is_said(
    damage, undisturbed, tmp_path, capsys
) -> None:
    workdir = _copied(undisturbed, tmp_path / "run", without=())
    _damage(workdir / "checkpoints" / "12", damage)
    with pytest.raises(VitportError):
        weights(workdir)
    assert main(arguments(workdir, *LENGTH)) == 0
    told = capsys.readouterr().out
    assert "checkpoint 12 cannot be read" in told
    assert "resuming from the checkpoint of step 9" in told
    assert same_bits(weights(workdir), weights(undisturbed))
    assert (workdir / "checkpoints" / "unread-12" / "rest").is_dir()  # it may have been a passing failure


def test_a_flipped_bit_of_a_checkpoint_in_a_bucket_is_found(undisturbed, tmp_path, monkeypatch) -> None:
    """In each part, by a run that goes on from it, and by who takes its weights; every object of a part has its sum."""
    with running("gs", monkeypatch, tmp_path / "cache") as store:
        objects = Objects(f"{store.address}/run")
        put(undisturbed / "checkpoints" / "12", f"{objects.address}/checkpoints/12", overwrite=False)
        names = objects.names("checkpoints/12/")
        sums = json.loads(objects.read("checkpoints/12/sha256.json") or b"")
        mirror = Mirror(objects, 0, 1)
        for part in PARTS:
            of_part = [name for name in names if name.startswith(f"checkpoints/12/{part}/")]
            assert {name.removeprefix("checkpoints/12/") for name in of_part} <= sums.keys()
            name, content = max(((name, objects.read(name) or b"") for name in of_part), key=lambda it: len(it[1]))
            middle = len(content) // 2
            objects.write(name, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
            mirror.fetch(12)
            with pytest.raises(VitportError, match=r"is damaged: its SHA-256"):
                check_checksums(mirror.folder / "checkpoints" / "12")
            if part == "rest":  # the optimizer's state is not fetched with the weights
                assert same_bits(weights(objects.address), weights(undisturbed))
            else:
                with pytest.raises(VitportError, match=r"is damaged: its SHA-256"):
                    weights(objects.address)
            objects.write(name, content)
        mirror.close()


def _damage(checkpoint: Path, how: str) -> None:
    if how == "lost":
        shutil.rmtree(checkpoint / "params")
        return
    if how == "another shape":  # as another model's would be
        file = checkpoint / "params" / "_METADATA"
        content = bytearray(file.read_bytes().replace(b"[16", b"[17", 1))
    else:
        file = max((checkpoint / "params").rglob("*"), key=lambda path: path.stat().st_size)
        content = bytearray(file.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "flipped":
        content[len(content) // 2] ^= 1
    assert content != file.read_bytes()
    file.write_bytes(content)


def test_sigterm_saves_and_no_image_is_seen_twice_or_missed_in_an_epoch(tmp_path, monkeypatch, capsys) -> None:
    """24 images in batches of 8, three epochs; the signal comes within the second. Oracle: counting."""
    seen: list[bytes] = []

    class Recording(Stream):
        def __next__(self) -> Batch:
            batch = super().__next__()
            seen.extend(image.tobytes() for image in batch["image"])
            return batch

    monkeypatch.setattr("vit_jax.training.run.loop.Stream", Recording)
    data = ("--data", str(image_folder(tmp_path / "images")), "--data.augment.crop", "none")
    options = (*data, "--batch", "8", "--steps", "9", "--keep.every", "9", "--log-every", "3")
    assert main(arguments(tmp_path / "straight", *options)) == 0
    straight, seen[:] = list(seen), []
    assert len(set(straight)) == 24

    def told(line: Line, steps: int) -> None:
        if line.step == 3:  # two steps behind, and so within the three of the next line
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr("vit_cli.train._print_line", told)
        assert main(arguments(tmp_path / "run", *options)) == 75
    assert f"stopped by SIGTERM after step 5, saved in {tmp_path / 'run'}" in capsys.readouterr().out
    assert _checkpoints(tmp_path / "run") == {"5"}
    assert main(arguments(tmp_path / "run", *options)) == 0
    assert [len(set(seen[epoch : epoch + 24])) for epoch in (0, 24, 48)] == [24, 24, 24]
    assert seen == straight
    assert same_bits(weights(tmp_path / "run"), weights(tmp_path / "straight"))
    assert lines(tmp_path / "run") == lines(tmp_path / "straight")


@pytest.mark.slow
def test_a_process_that_is_told_to_end_by_sigterm_saves(tmp_path) -> None:
    """Of so many steps that the signal comes before the last."""
    options = ("--steps", "300", "--keep.every", "300", "--log-every", "1")
    process = subprocess.Popen(
        command(tmp_path / "run", *options), env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 4/"):
            process.send_signal(signal.SIGTERM)
            break
    process.communicate()
    assert process.returncode == 75
    (stopped,) = (int(name) for name in _checkpoints(tmp_path / "run"))
    assert 4 <= stopped < 300


@pytest.fixture(scope="module")
def long_run(tmp_path_factory) -> Path:
    """The work directory of a longer run that nobody disturbs."""
    workdir = tmp_path_factory.mktemp("long") / "run"
    train(workdir, *LONG)
    return workdir


LONG = ("--steps", "200", "--keep.every", "2", "--log-every", "3")


def test_killed_twice_a_run_ends_with_the_same_bits(undisturbed, tmp_path) -> None:
    check_killed(tmp_path / "run", undisturbed, LENGTH, seed=0, kills=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_ten_times_a_long_run_ends_with_the_same_bits(seed, long_run, tmp_path) -> None:
    check_killed(tmp_path / "run", long_run, LONG, seed=seed, kills=10)


@pytest.mark.slow
def test_a_run_begun_on_eight_devices_by_scan_goes_on_on_two_without(undisturbed, tmp_path) -> None:
    workdir = tmp_path / "run"
    train(workdir, *LENGTH, "--mesh", "data=2,fsdp=2,tensor=2", "--scan", devices=8)
    shutil.rmtree(workdir / "checkpoints" / "12")
    told = train(workdir, *LENGTH, "--mesh", "data=1,fsdp=2,tensor=1", devices=2)
    assert "resuming from the checkpoint of step 9" in told
    assert furthest(weights(workdir), weights(undisturbed)) < 2e-5
    losses = zip(log(workdir), log(undisturbed), strict=True)
    assert max(abs(mine["loss"] - theirs["loss"]) for mine, theirs in losses) < 2e-6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--model.depth", "3"), "holds a run of another model (depth 2 instead of 3)"),
        (
            ("--recipe.optimizer.name", "sgd", "--recipe.ema", "0"),
            "holds a run with another optimizer state (ema 0.9 instead of 0.0, name adamw instead of sgd, ",
        ),
        (("--recipe.optimizer.frozen", "blocks/0"), "another optimizer state (frozen [] instead of ['blocks/0'], "),
    ],
)
def test_a_work_directory_of_another_run_is_refused(options, sentence, undisturbed, tmp_path, capsys) -> None:
    workdir = _copied(undisturbed, tmp_path / "run", without=())
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert main(arguments(workdir, *LENGTH, *options)) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


def test_other_classes_of_as_many_images_are_refused(undisturbed, tmp_path, monkeypatch, capsys) -> None:
    record = Setup.record
    monkeypatch.setattr(Setup, "record", lambda self: record(self) | {"labels": [f"other {at}" for at in range(10)]})
    assert main(arguments(_copied(undisturbed, tmp_path / "run", without=(12,)), *LENGTH)) == 2
    assert (
        "holds a run on other classes than digits (train) has, or on another order of them" in capsys.readouterr().err
    )


def test_what_makes_no_other_state_may_change_and_another_order_of_images_is_told(
    undisturbed, tmp_path, capsys
) -> None:
    workdir = _copied(undisturbed, tmp_path / "run", without=(12,))
    options = ("--recipe.optimizer.weight-decay", "0.3", "--batch", "16")
    assert main(arguments(workdir, *LENGTH, *options)) == 0
    told = capsys.readouterr().out
    assert "resuming from the checkpoint of step 9" in told
    assert "batch 16 instead of 32: the order of images changes" in told


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (None, "rest/optimizer/0.count is int32 () instead of nothing"),
        ({"ema": 0.9, "optimizer": {"name": "a name of another version"}}, "name a name of another version instead of"),
    ],
)
def test_the_state_of_a_run_is_read_in_its_checkpoint(recipe, sentence, undisturbed, tmp_path, capsys) -> None:
    """Not rebuilt from what its record says of its options, as other code knew them, or not at all."""
    workdir = _copied(undisturbed, tmp_path / "run", without=())
    for folder in (workdir / "checkpoints").iterdir():
        file = folder / "record" / "metadata"
        record = json.loads(file.read_text()) | {"recipe": recipe}
        file.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))
        (folder / "sha256.json").unlink()
    assert main(arguments(workdir, *LENGTH, "--recipe.optimizer.name", "sgd")) == 2
    told = capsys.readouterr().err
    assert f"holds a run with another optimizer state ({sentence}" in told
    shutil.rmtree(workdir / "checkpoints" / "12")
    assert main(arguments(workdir, *LENGTH)) == 0
    assert same_bits(weights(workdir), weights(undisturbed))
