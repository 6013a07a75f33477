"""What goes wrong around a run: lost folders, other processes, signals. Oracle: the run that nobody disturbs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vit_cli.training import LENGTH, ROOT, arguments, environment, lines, same_bits, weights
from vit_cli.main import main
from vit_jax.training.recipe.config import CheckpointOptions
from vit_jax.training.run.checkpoints import _read_by_all
from vit_jax.training.run.keeping import kept, saved_steps
from vit_jax.training.run.lock import Lock
from vit_jax.training.run.monitor import Line


def _delete_checkpoints(run: Path) -> None:
    while (run / "checkpoints").exists():  # one of them may just be written
        shutil.rmtree(run / "checkpoints", ignore_errors=True)


def _delete(run: Path) -> None:
    while run.exists():
        shutil.rmtree(run, ignore_errors=True)


def _move(run: Path) -> None:
    run.rename(run.with_name("away"))


def _replace(run: Path) -> None:
    _move(run)
    run.mkdir(exist_ok=True)  # what is just being written may have made it


def _replace_log(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()


def _at_step(step: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """When that step is logged, two steps later unless a checkpoint comes first."""

    def told(line: Line, steps: int) -> None:
        if line.step == step:
            act()

    monkeypatch.setattr("vit_cli.train._print_line", told)


@pytest.mark.parametrize(
    ("fault", "sentence", "saved"),
    [
        pytest.param(_delete, "was deleted, moved, unmounted or replaced", False, marks=pytest.mark.slow),
        pytest.param(_move, "was deleted, moved, unmounted or replaced", False, marks=pytest.mark.slow),
        (_replace, "was deleted, moved, unmounted or replaced", False),
        pytest.param(_replace_log, "metrics.jsonl cannot be written (Is a directory)", True, marks=pytest.mark.slow),
        (_delete_checkpoints, "checkpoints was deleted, moved or replaced", True),
    ],
)
def test_what_is_lost_in_mid_run_ends_it_in_one_sentence(
    fault, sentence, saved, undisturbed, tmp_path, monkeypatch, capsys
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr("vit_jax.training.run.checkpoint_writer._LOOK", 0.0)
    with monkeypatch.context() as patched:
        _at_step(7, lambda: fault(run), patched)
        assert main(arguments(run, *LENGTH)) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert ("is saved" in told) == saved
    assert ("could not be saved at the second attempt either" in told) == (not saved)
    if not saved:
        assert not saved_steps(run / "checkpoints")  # nothing goes into a folder that may be another's
        assert not (run / "metrics.jsonl").exists()
        return
    if fault is _replace_log:
        (run / "metrics.jsonl").rmdir()
    assert main(arguments(run, *LENGTH)) == 0
    assert same_bits(weights(run), weights(undisturbed))


def test_a_second_run_in_the_same_directory_is_refused_at_once(tmp_path, capsys) -> None:
    with Lock(tmp_path / "run"):
        begin = time.monotonic()
        assert main(arguments(tmp_path / "run", *LENGTH)) == 2
        assert time.monotonic() - begin < 5
    told = capsys.readouterr().err
    assert f"run is in use by another run (process {os.getpid()} on " in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_an_interrupted_evaluation_is_made_up_for(number, status, undisturbed, tmp_path, monkeypatch, capsys) -> None:
    """The signal comes when the evaluation of step 3 begins; the log, and which checkpoints are best, are the same."""
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        _at_step(3, lambda: os.kill(os.getpid(), number), patched)
        assert main(arguments(run, *LENGTH)) == status
    assert f"stopped by {number.name} after step 3, saved in {run}" in capsys.readouterr().out
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["3"]
    assert not (run / "checkpoints" / "3" / "metrics").exists()
    assert not (run / "owner.json").exists()
    assert main(arguments(run, *LENGTH)) == 0
    assert lines(run) == lines(undisturbed)
    assert same_bits(weights(run), weights(undisturbed))
    assert saved_steps(run / "checkpoints") == saved_steps(undisturbed / "checkpoints")


@pytest.mark.parametrize(
    ("phase", "number", "status"),
    [
        ("importing", signal.SIGINT, 130),
        ("importing", signal.SIGTERM, 75),
        ("compiling", signal.SIGTERM, 75),
        pytest.param("compiling", signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_before_the_first_step_ends_the_process_and_leaves_no_lock(phase, number, status, tmp_path) -> None:
    command = [sys.executable, "-m", "vit_cli", *arguments(tmp_path / "run", *LENGTH)]
    process = subprocess.Popen(
        command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if phase == "importing":
        while process.poll() is None and not _handles_sigterm(process.pid):
            time.sleep(0.002)
    else:
        process.stdout.readline()  # of what the run will be
    process.send_signal(number)
    out, told = process.communicate(timeout=60)
    assert process.returncode == status, out + told
    assert told == f"vitport: stopped by {number.name}: run again to resume.\n"
    assert not (tmp_path / "run" / "owner.json").exists()


def test_a_dry_run_has_nothing_to_resume(tmp_path) -> None:
    command = [sys.executable, "-m", "vit_cli", *arguments(tmp_path / "run", *LENGTH, "--dry-run")]
    process = subprocess.Popen(
        command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not _handles_sigterm(process.pid):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=60)
    assert (process.returncode, out, told) == (75, "", "vitport: stopped by SIGTERM.\n")


def _handles_sigterm(pid: int) -> bool:
    """As Python by itself does not."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_signal_while_a_checkpoint_is_read_does_not_make_it_a_damaged_one() -> None:
    """Libraries turn KeyboardInterrupt into errors of their own."""

    def read() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            raise RuntimeError("something of the library's own") from None

    with pytest.raises(KeyboardInterrupt):
        _read_by_all(read)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_not_the_runs_own_among_its_checkpoints_is_left_alone(undisturbed, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    folder = run / "checkpoints"
    shutil.rmtree(folder / "12")
    foreign = ["²", "٣", "07", "-1", "9.backup", "1e3", "unread-12", "5"]
    for name in foreign:
        (folder / name).mkdir()
        (folder / name / "thesis.txt").write_text("ten years")
    (folder / "notes.txt").write_text("mine")
    (folder / "13").write_text("a file")
    (folder / "2").symlink_to("9")
    (folder / "12.orbax-checkpoint-tmp").mkdir()
    assert saved_steps(folder)[-1] == 9
    assert main(arguments(run, *LENGTH)) == 0
    assert lines(run) == lines(undisturbed)
    assert same_bits(weights(run), weights(undisturbed))
    assert all((folder / name / "thesis.txt").read_text() == "ten years" for name in foreign)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "2").is_symlink()
    assert not (folder / "12.orbax-checkpoint-tmp").exists()


def test_the_newest_and_the_best_checkpoints_are_kept(tmp_path) -> None:
    for step, accuracy in {1: 0.5, 2: 0.9, 3: 0.9, 4: None, 5: 0.1, 6: None}.items():
        (tmp_path / str(step) / "record").mkdir(parents=True)
        if accuracy is not None:
            (tmp_path / str(step) / "metrics").mkdir()
            (tmp_path / str(step) / "metrics" / "metrics").write_text(f'{{"accuracy": {accuracy}}}')
    assert kept(tmp_path, CheckpointOptions(last=2, best=1)) == {3, 5, 6}
    assert kept(tmp_path, CheckpointOptions(last=1, best=2)) == {2, 3, 6}
    assert kept(tmp_path, CheckpointOptions(last=1, best=0)) == {6}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda run: (run / "metrics.jsonl").mkdir(parents=True), "metrics.jsonl cannot be written"),
        (lambda run: (run / "checkpoints").write_text("x"), "could not be written"),
        (lambda run: (run / "config.json").mkdir(), "config.json"),
        (lambda run: (run / "tensorboard").write_text("x"), "tensorboard cannot be written"),
    ],
)
def test_a_directory_with_something_else_in_it_is_one_sentence(spoil, sentence, tmp_path, capsys) -> None:
    (tmp_path / "run").mkdir()
    spoil(tmp_path / "run")
    assert main(arguments(tmp_path / "run", *LENGTH)) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
