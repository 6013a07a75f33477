"""What a run reports: throughput, JSON lines, TensorBoard; and the end of a run that diverges."""

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
from vit_spec import Config, VitportError, forward_flops

LINES = "metrics.jsonl"
BOARD = "tensorboard"
_LAG = 2
"""Steps that the host dispatches ahead, so that the devices never wait for it."""


def step_flops(model: Config, batch: int) -> float:
    """Floating point operations of a step's matrix products; the backward pass has twice those of the forward pass."""
    return 3.0 * forward_flops(model) * batch


@dataclass(frozen=True)
class Speed:
    """Speed of the steps since the previous line."""

    images_per_second: float
    teraflops: float
    """10^12 operations of matrix products per second, over all devices."""
    mfu: float | None
    """Model FLOPs utilisation: the same as a share of the devices' peak; ``None`` where the peak is unknown."""
    data_wait: float
    """Share of the time that the loop waited for images."""
    seconds_left: float


@dataclass(frozen=True)
class Line:
    """One line of the log, with means over the steps since the previous line."""

    step: int
    loss: float
    accuracy: float
    """On the training images as mixed; correct is the class with the largest share of the target."""
    gradient_norm: float
    parameter_norm: float
    learning_rate: float
    speed: Speed | None
    """``None`` for the first step, whose time is that of compilation."""
    skipped: int
    """Images so far that this process could not read."""

    def values(self) -> dict[str, float | None]:
        """Everything but the step, as a flat dictionary."""
        own = {name: value for name, value in asdict(self).items() if name not in ("step", "speed")}
        return own | (asdict(self.speed) if self.speed is not None else {})


class FiniteGuard:
    """Stops the run at the first metric that is not finite.

    A step's metrics are read two steps later, when the devices have computed them.

    Args:
        workdir: gets the batch of the failed step.
        on_metrics: called with each step's number, from 1, and its metrics.
    """

    def __init__(self, workdir: Path, on_metrics: Callable[[int, Mapping[str, float]], None]) -> None:
        self._workdir, self._on_metrics = workdir, on_metrics
        self._pending: deque[tuple[int, Batch, Mapping[str, jax.Array]]] = deque()

    def add(self, step: int, batch: Batch, metrics: Mapping[str, jax.Array]) -> None:
        """Takes the metrics of the step that was just dispatched, and reads those of an earlier one.

        Raises:
            VitportError: if an earlier loss or gradient is not finite.
        """
        self._pending.append((step, batch, metrics))
        while len(self._pending) > _LAG:
            self._check_next()

    def drain(self) -> None:
        """Reads the metrics of all steps so far; raises as :meth:`add` does."""
        while self._pending:
            self._check_next()

    def _check_next(self) -> None:
        step, batch, metrics = self._pending.popleft()
        values = {name: float(np.asarray(value.addressable_shards[0].data)) for name, value in metrics.items()}
        if all(math.isfinite(value) for value in values.values()):
            self._on_metrics(step, values)
            return
        path = self._workdir / f"failed_step_{step}.npz"
        with writing(path):
            np.savez(path, **batch)  # type: ignore[arg-type]
        found = ", ".join(f"{name} {value}" for name, value in values.items())
        raise VitportError(
            f"Step {step} gave {found}, and expected were finite numbers; its batch is in {path}. Lower schedule.peak, "
            "set optimizer.clip_norm or check the images, and run again from the last checkpoint."
        )


class Throughput:
    """Measures the speed since the last line; evaluations and checkpoints do not count."""

    def __init__(self, model: Config, batch: int) -> None:
        self._flops, self._batch = step_flops(model, batch), batch
        kinds = [peak_flops(device.device_kind) for device in jax.devices()]
        self._peak = None if None in kinds else sum(kind or 0 for kind in kinds)
        self.start()

    def start(self) -> None:
        """Starts a new measurement."""
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def add_wait(self, seconds: float) -> None:
        """Counts time that the loop waited for images."""
        self._waited += seconds

    def add_step(self) -> None:
        """Counts a finished step."""
        self._steps += 1

    def measure(self, left: int) -> Speed | None:
        """The speed since the last line, ``None`` if no step was finished; a new measurement starts.

        Args:
            left: steps to the end of the run.
        """
        seconds, steps = time.perf_counter() - self._since, self._steps
        waited = self._waited / seconds
        self.start()
        if not steps:
            return None
        flops = steps * self._flops / seconds
        return Speed(
            images_per_second=steps * self._batch / seconds,
            teraflops=flops / 1e12,
            mfu=None if self._peak is None else flops / self._peak,
            data_wait=min(waited, 1.0),
            seconds_left=left * seconds / steps,
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of writing to a work directory into a VitportError.

    Raises:
        VitportError: if the disk is full, or the directory is not writable.
    """
    try:
        yield
    except OSError as error:
        raise VitportError(
            f"{error.filename or path} cannot be written ({error.strerror or error}): check free space and "
            "permissions, and run again."
        ) from error


class Log:
    """JSON lines and TensorBoard in the work directory, written by the main process.

    Args:
        workdir: of the run.
        step: where the run resumes; later lines are removed.

    Raises:
        VitportError: if the log cannot be written.
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
    """TensorBoard's file, written by the calling thread.

    tensorboardX's ``SummaryWriter`` writes in a thread of its own, which dies on a full disk while the run waits for it
    forever.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog  # type: ignore[attr-defined]  # made when imported

        self._folder = folder
        with writing(folder):
            folder.mkdir(exist_ok=True)
            self._events = EventsWriter(str(folder / "events"))
        # TensorBoard hides what an earlier start logged after this step.
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
    """The lines that :class:`Log` wrote, in order."""
    return _whole_lines(workdir / LINES)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Without lines that a killed process or a full disk left unfinished."""
    if not path.exists():
        return []
    found = []
    for text in path.read_text(errors="replace").splitlines():
        with suppress(ValueError):
            found.append(json.loads(text))
    return [line for line in found if isinstance(line, dict) and "step" in line]
