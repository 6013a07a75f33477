"""Two processes of four devices are one device: dropout, stochastic depth and mixup on. Oracle: the run on one device.

Measured, 12 steps in float32: losses 2.4e-7 apart, weights 2e-6.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.vit_cli.training import (
    LENGTH,
    arguments,
    command,
    environment,
    free_port,
    furthest,
    lines,
    log,
    same_bits,
    start_two,
    train,
    weights,
)

ONE_CANNOT_READ = """
import sys
import jax
from vit_cli.main import main
from vit_jax.training.run import checkpoints
from vit_spec import VitportError

check = checkpoints.check_checksums
def check_but_the_newest(folder):
    if folder.name == "12" and jax.process_index() == 1:
        raise VitportError("a bad cable")
    check(folder)
checkpoints.check_checksums = check_but_the_newest
sys.exit(main(sys.argv[1:]))
"""

ONE_HAS_ANOTHER_OPTIMIZER = """
import sys
from vit_cli.main import main

options = ["--recipe.optimizer.name", "sgd"] if sys.argv[-1] == "1" else []
sys.exit(main([*sys.argv[1:], *options]))
"""

ONE_IS_LATE = """
import sys
import time
from vit_cli.main import main
from vit_jax.training.data import Stream

make = Stream.__next__
def late(self):
    if sys.argv[-1] == "1" and not self._taken_late:
        Stream._taken_late = True
        time.sleep(35)
    return make(self)
Stream._taken_late, Stream.__next__ = False, late
sys.exit(main(sys.argv[1:]))
"""

ONE_CANNOT_WRITE = """
import resource
import sys
from vit_cli.__main__ import entry
from vit_jax.training.run.checkpoint_writer import CheckpointWriter

save = CheckpointWriter.save
def limited(self, state, record, metrics):
    if self._newest == 3 and sys.argv[-1] == "{index}":
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    save(self, state, record, metrics)
CheckpointWriter.save = limited
sys.exit(entry())
"""

ONE_IS_KILLED = """
import os
import signal
import sys
from vit_cli.__main__ import entry
from vit_jax.training.run.loop import _Loop

step = _Loop._take_step
def to_the_eighth(self):
    if self.step == 7 and sys.argv[-1] == "{index}":
        os.kill(os.getpid(), signal.SIGKILL)
    step(self)
_Loop._take_step = to_the_eighth
sys.exit(entry())
"""


def _together(
    workdir: Path,
    *options: str,
    program: tuple[str, ...] = ("-m", "vit_cli.main"),
    expect: int | tuple[int | tuple[int, ...], ...] = 0,
) -> list[str]:
    """What each of two processes with four devices prints.

    Args:
        expect: the status of both, or of each, or those that it may have.
    """
    processes = start_two(arguments(workdir, *LENGTH, *options), program=program)
    told = [process.communicate(timeout=300)[0] for process in processes]
    for process, expected in zip(processes, expect if isinstance(expect, tuple) else (expect, expect), strict=True):
        assert process.returncode in (expected if isinstance(expected, tuple) else (expected,)), told
    return told


@pytest.mark.parametrize(
    "mesh",
    [
        "data=2,fsdp=2,tensor=2",
        pytest.param("data=-1", marks=pytest.mark.slow),
        pytest.param("data=1,fsdp=8,tensor=1", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one_device_does(mesh, undisturbed, tmp_path) -> None:
    told = _together(tmp_path / "run", "--mesh", mesh)
    assert "step 12/12" in told[0]
    assert "step" not in told[1]  # one of them speaks
    losses = zip(log(tmp_path / "run"), log(undisturbed), strict=True)
    assert max(abs(mine["loss"] - theirs["loss"]) for mine, theirs in losses) < 2e-6
    assert log(tmp_path / "run", "validation")[-1]["accuracy"] == pytest.approx(
        log(undisturbed, "validation")[-1]["accuracy"]
    )
    for key in ("params", "ema"):
        assert furthest(weights(tmp_path / "run", key), weights(undisturbed, key)) < 2e-5


@pytest.mark.slow
def test_a_process_that_comes_to_its_first_step_half_a_minute_late_is_waited_for(undisturbed, tmp_path) -> None:
    """gloo gives up after 30 seconds, where groups of devices are not connected yet."""
    _together(tmp_path / "run", "--mesh", "data=2,fsdp=2,tensor=2", program=("-c", ONE_IS_LATE))
    assert furthest(weights(tmp_path / "run"), weights(undisturbed)) < 2e-5


def test_what_one_of_two_processes_cannot_read_none_goes_on_from(undisturbed, tmp_path) -> None:
    """Else one would take the steps from 9 on, and the other wait for it at step 12, or take other sums."""
    shutil.copytree(undisturbed, tmp_path / "run")
    told = _together(tmp_path / "run", program=("-c", ONE_CANNOT_READ))
    assert "checkpoint 12 cannot be read by process 1 (a bad cable): the previous one is used" in told[0]
    assert "resuming from the checkpoint of step 9" in told[0]
    assert "step 12/12" in told[0]
    assert furthest(weights(tmp_path / "run"), weights(undisturbed)) < 2e-5


def test_where_one_of_two_processes_refuses_both_stop(undisturbed, tmp_path) -> None:
    """Neither waits for the other until the service that joins them gives up."""
    shutil.copytree(undisturbed, tmp_path / "run")
    told = _together(tmp_path / "run", program=("-c", ONE_HAS_ANOTHER_OPTIMIZER), expect=2)
    assert f"vitport: {tmp_path / 'run'} holds a run with another optimizer state (name adamw instead of" in told[1]
    assert "vitport: Process 1 stopped: " in told[0]
    assert "Traceback" not in told[0] + told[1]


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_where_one_of_two_processes_cannot_write_both_stop(index, tmp_path) -> None:
    """Files of more than 3 kB, from the checkpoint of step 6 on, as of one with a quota of its own."""
    program = ("-c", ONE_CANNOT_WRITE.format(index=index))
    told = _together(tmp_path / "run", "--mesh", "data=1,fsdp=8,tensor=1", program=program, expect=2)
    for text in told:
        assert "Traceback" not in text
        (sentence,) = [line for line in text.splitlines() if line.startswith("vitport: ")]
        assert "Checkpoint 6 could not be written to" in sentence
        assert "the newest checkpoint is that of step 3" in sentence
    assert (tmp_path / "run" / "checkpoints" / "3").is_dir()
    assert not (tmp_path / "run" / "checkpoints" / "6").exists()


@pytest.mark.slow
def test_where_one_of_two_processes_is_killed_the_other_stops_and_both_go_on_later(tmp_path) -> None:
    """JAX aborts those that lose the first one, whose service joins them, unless ours is faster. Oracle: a run of two
    processes that nobody disturbs, bit for bit."""
    mesh = ("--mesh", "data=1,fsdp=8,tensor=1")
    _together(tmp_path / "whole", *mesh)
    for index, expect in ((1, (75, -9)), (0, (-9, (75, -6)))):
        begun = time.monotonic()
        told = _together(tmp_path / "run", *mesh, program=("-c", ONE_IS_KILLED.format(index=index)), expect=expect)
        assert time.monotonic() - begun < 95  # less than JAX would wait after the start, which takes most
        if index == 1:
            assert "Traceback" not in told[0]
            (sentence,) = [line for line in told[0].splitlines() if line.startswith("vitport: ")]
            assert sentence.startswith("vitport: Another process of this run has ended, and its log says why (")
        told = _together(tmp_path / "run", *mesh)
        assert re.search("resuming from the checkpoint of step [36]", told[0])  # 6 was written in the background
        for key in ("params", "ema"):
            assert same_bits(weights(tmp_path / "run", key), weights(tmp_path / "whole", key))
        assert lines(tmp_path / "run") == lines(tmp_path / "whole")
        shutil.rmtree(tmp_path / "run")


def test_processes_that_do_not_meet_in_time_say_so(tmp_path) -> None:
    """Two of three, the first among them: both wait for the last."""
    meeting = ("--processes.coordinator", f"127.0.0.1:{free_port()}", "--processes.count", "3")
    processes = [
        subprocess.Popen(
            command(tmp_path / "run", *LENGTH, *meeting, "--processes.index", str(index), "--processes.wait", "2"),
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [75, 75], told  # they may all come when started again
    for text in told:
        first, *_ = text.splitlines()  # JAX's own service speaks last
        assert first.startswith("vitport: Not all processes of this run connected to 127.0.0.1")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_two_processes_began_one_goes_on_with(undisturbed, tmp_path) -> None:
    _together(tmp_path / "run", "--mesh", "data=2,fsdp=4,tensor=1")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    assert "resuming from the checkpoint of step 9" in train(tmp_path / "run", *LENGTH, "--mesh", "data=1,fsdp=1")
    assert furthest(weights(tmp_path / "run"), weights(undisturbed)) < 2e-5
