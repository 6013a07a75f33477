"""What a run tells while it goes on: throughput, JSON lines, TensorBoard; and the end of a run that went wrong."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.training.data import Batch
from vit_jax.training.devices.chips import peak_flops
from vit_spec import ViTConfig, VitportError, forward_flops

LINES = "metrics.jsonl"
BOARD = "tensorboard"
_LAG = 2
"""Steps that the host runs ahead of the devices, so that they never wait for it."""


def step_flops(model: ViTConfig, batch: int) -> float:
    """Operations of the products of a training step: the backward pass has twice those of the forward pass."""
    return 3.0 * forward_flops(model) * batch


@dataclass(frozen=True)
class Throughput:
    """Of the steps since the line before."""

    images_per_second: float
    teraflops: float
    """Operations of products a second, of all devices, in 10^12."""
    mfu: float | None
    """The same as a share of what the devices can do at most; ``None`` where that is not known."""
    data_wait: float
    """Share of the time in which the loop waited for pictures."""
    seconds_left: float


@dataclass(frozen=True)
class Line:
    """One entry of the log; means over the steps since the one before."""

    step: int
    loss: float
    accuracy: float
    """Of the training pictures as they were mixed, against the larger share of their targets."""
    gradient_norm: float
    parameter_norm: float
    learning_rate: float
    throughput: Throughput | None
    """``None`` of the first step: what it takes to compile is none."""
    skipped: int
    """Pictures so far that this process could not read."""

    def values(self) -> dict[str, float | None]:
        """All of it but the step, flat."""
        own = {name: value for name, value in asdict(self).items() if name not in ("step", "throughput")}
        return own | (asdict(self.throughput) if self.throughput is not None else {})


class Watch:
    """Reads a step's metrics when they are there, two steps later, and stops the run at the first that is no number.

    Args:
        workdir: gets the batch of the step that went wrong.
        read: is told each step's number, the first being 1, and its metrics.
    """

    def __init__(self, workdir: Path, read: Callable[[int, Mapping[str, float]], None]) -> None:
        self._workdir, self._read = workdir, read
        self._behind: deque[tuple[int, Batch, Mapping[str, jax.Array]]] = deque()

    def add(self, step: int, batch: Batch, metrics: Mapping[str, jax.Array]) -> None:
        """Of the step that has just been handed to the devices.

        Raises:
            VitportError: if an earlier loss or gradient is no finite number.
        """
        self._behind.append((step, batch, metrics))
        while len(self._behind) > _LAG:
            self._take()

    def drain(self) -> None:
        """Waits for all steps so far; raises as :meth:`add` does."""
        while self._behind:
            self._take()

    def _take(self) -> None:
        step, batch, metrics = self._behind.popleft()
        values = {name: float(np.asarray(value.addressable_shards[0].data)) for name, value in metrics.items()}
        if all(math.isfinite(value) for value in values.values()):
            self._read(step, values)
            return
        path = self._workdir / f"failed_step_{step}.npz"
        with writing(path):
            np.savez(path, **batch)  # type: ignore[arg-type]
        told = ", ".join(f"{name} {value}" for name, value in values.items())
        raise VitportError(
            f"Step {step} gave {told}: its batch is in {path}; lower schedule.peak, clip gradients or look at the "
            "pictures, and run again from the last checkpoint."
        )


class Clock:
    """Throughput since the last line; evaluations and checkpoints do not count."""

    def __init__(self, model: ViTConfig, batch: int) -> None:
        self._flops, self._batch = step_flops(model, batch), batch
        kinds = [peak_flops(device.device_kind) for device in jax.devices()]
        self._peak = None if None in kinds else sum(kind or 0 for kind in kinds)
        self.start()

    def start(self) -> None:
        """Begins anew, say when everything is compiled."""
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def waited(self, seconds: float) -> None:
        """For pictures."""
        self._waited += seconds

    def step(self) -> None:
        """One more is done."""
        self._steps += 1

    def throughput(self, left: int) -> Throughput | None:
        """Of the steps since the last line, with ``left`` to go; begins anew. ``None`` of no steps."""
        seconds, steps = time.perf_counter() - self._since, self._steps
        waited = self._waited / seconds
        self.start()
        if not steps:
            return None
        flops = steps * self._flops / seconds
        return Throughput(
            images_per_second=steps * self._batch / seconds,
            teraflops=flops / 1e12,
            mfu=None if self._peak is None else flops / self._peak,
            data_wait=min(waited, 1.0),
            seconds_left=left * seconds / steps,
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes to a work directory.

    Raises:
        VitportError: where the disk is full, or nothing may be written.
    """
    try:
        yield
    except OSError as error:
        raise VitportError(
            f"{error.filename or path} cannot be written ({error.strerror or error}): see that the disk has room and "
            "that you may write there, and run again."
        ) from error


class Log:
    """JSON lines and TensorBoard in the work directory, of one process alone.

    Args:
        workdir: of the run.
        step: that it goes on from; what was logged after it is cut off.

    Raises:
        VitportError: if it cannot be written.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        self._path = workdir / LINES
        with writing(self._path):
            self._cut(step)
        self._board = _Board(workdir / BOARD, step)

    def _cut(self, step: int) -> None:
        if self._path.exists():
            kept = [line for line in _whole_lines(self._path) if line["step"] <= step]
            aside = self._path.with_suffix(".part")
            aside.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
            aside.replace(self._path)

    def line(self, line: Line) -> None:
        self._write("train", line.step, line.values())

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._write("validation", step, metrics)

    def _write(self, of: str, step: int, values: Mapping[str, Any]) -> None:
        finite = {
            name: value if not isinstance(value, float) or math.isfinite(value) else None
            for name, value in values.items()
        }
        with writing(self._path), self._path.open("a") as file:
            file.write(json.dumps({"step": step, "of": of, **finite}) + "\n")
        self._board.write(step, {f"{of}/{name}": value for name, value in finite.items() if value is not None})

    def close(self) -> None:
        self._board.close()


class _Board:
    """TensorBoard's file, written by the caller's own thread.

    tensorboardX's ``SummaryWriter`` has a thread for it: on a full disk that dies, and the run waits for it for ever.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog  # type: ignore[attr-defined]  # made when imported

        self._folder = folder
        with writing(folder):
            folder.mkdir(exist_ok=True)
            self._events = EventsWriter(str(folder / "events"))
        # What an earlier start logged after this step is not shown.
        self._add(step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars by name."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._add(step, summary=scalar(name, value))
        with writing(self._folder):
            self._events.flush()

    def _add(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]

        with writing(self._folder):
            self._events.write_event(Event(wall_time=time.time(), step=step, **what))

    def close(self) -> None:
        with writing(self._folder):
            self._events.close()


def read_lines(workdir: Path) -> list[dict[str, Any]]:
    """What :class:`Log` wrote, in order."""
    return _whole_lines(workdir / LINES)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Without what a process that was killed, or a disk that was full, left unfinished."""
    if not path.exists():  # nothing was logged, or it was taken away
        return []
    found = []
    for text in path.read_text(errors="replace").splitlines():
        with suppress(ValueError):
            found.append(json.loads(text))
    return [line for line in found if isinstance(line, dict) and "step" in line]
