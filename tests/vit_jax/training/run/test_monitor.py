"""The log of a run. Oracles: tensorboardX's own messages; a limit on the size of a process's files for a full disk."""

from __future__ import annotations

import resource
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]  # made when imported

from vit_jax.training.run.log import LINES, Log, read_lines
from vit_jax.training.run.monitor import Line, LossWatch
from vit_spec import VitportError

pytestmark = pytest.mark.jax_alone


def _events(folder: Path) -> list[Event]:
    """TFRecord: a length in eight bytes, its checksum in four, the message, its checksum in four."""
    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_scalars_are_in_json_lines_and_in_tensorboard_at_once(tmp_path) -> None:
    """Read before the log is closed: a process may be killed at any time."""
    log = Log(tmp_path, 0)
    log.evaluation(3, {"accuracy": 0.5, "loss": float("nan")})
    assert read_lines(tmp_path) == [{"step": 3, "of": "validation", "accuracy": 0.5, "loss": None}]
    events = _events(tmp_path / "tensorboard")
    scalars = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    assert scalars == [(3, "validation/accuracy", 0.5)]
    log.close()


def test_going_on_cuts_off_what_was_logged_later_and_what_is_damaged(tmp_path) -> None:
    log = Log(tmp_path, 0)
    for step in (1, 2, 3):
        log.evaluation(step, {"accuracy": step / 4})
    log.close()
    with (tmp_path / LINES).open("ab") as file:
        file.write(b'\0\0\xff\n[2]\n{"step": 2, "of": "tr')
    Log(tmp_path, 2).close()
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2]
    starts = [event.step for event in _events(tmp_path / "tensorboard") if event.session_log.status == SessionLog.START]
    assert 3 in starts  # TensorBoard hides what an earlier file has from there on


@pytest.mark.parametrize(("value", "file"), [(0.5, "tensorboard"), (float("nan"), LINES)])
def test_a_disk_that_fills_is_one_sentence(value, file, tmp_path) -> None:
    """TensorBoard's file grows faster, but for numbers that it does not take."""
    log = Log(tmp_path, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(VitportError, match=rf"{file} cannot be written \(File too large\)"):
            for step in range(200):
                log.evaluation(step, {"a": value, "b": value, "c": value})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.close()


def test_a_rising_loss_is_told_once_a_rise() -> None:
    """One that falls and wavers, triples, stays, and grows. Oracle: means by hand, 0.6 of the last and 0.4 of
    the new: 0.945 before step 9, and 1.527 then."""
    told: list[str] = []
    watch = LossWatch()
    losses = [2.0, 1.5, 1.0, 1.3, 0.9, 1.2, 0.8, 0.8, 2.4, 2.4, 2.4, 2.4, 2.4, 2.3, 9.0]
    for step, loss in enumerate(losses, 1):
        watch.add(Line(step, loss, 0.5, 3.0, 1.0, 1e-3, None, 0), told.append)
    assert [sentence.partition(", with")[0] for sentence in told] == [
        "the loss rises, from about 0.945 at step 8 to 1.53 at step 9",
        "the loss rises, from about 1.53 at step 9 to 4.98 at step 15",
    ]
    assert "lower --recipe.schedule.peak (the rate is 0.001 now)" in told[0]
    quiet = LossWatch()
    for step in range(100):
        quiet.add(Line(step, 0.02 + 0.03 * (step % 3), 1.0, 1.0, 1.0, 1e-3, None, 0), pytest.fail)
