"""JSON lines and TensorBoard in the work directory."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_jax.training.run.facts import write_facts
from vit_jax.training.run.monitor import Line
from vit_jax.training.run.trackers import Trackers
from vit_jax.training.run.writing import UnwrittenError, writing

if TYPE_CHECKING:
    from vit_jax.training.run.place import Place
    from vit_jax.training.run.resume import Progress
    from vit_jax.training.run.setup import Setup

LINES = "metrics.jsonl"
BOARD = "tensorboard"
TRAINING, VALIDATION = "train", "validation"


def begin_log(setup: Setup, place: Place, progress: Progress, tell: Callable[[str], None]) -> Log:
    """The log of a run that begins, or goes on, and the files that say what the run is.

    Args:
        tell: gets a sentence where a tracker fails.

    Raises:
        UnwrittenError: if they cannot be written.
        VitportError: if a tracker cannot begin.
    """
    write_facts(setup, place.folder)
    place.push()
    title = None if place.mirror is None else place.name.rstrip("/").rpartition("/")[2]
    trackers = Trackers(setup.options, place.folder, tell, title) if setup.options.log else None
    return Log(
        place.folder, progress.step, progress.unwritten, evaluates=progress.evaluates, written=place.push,
        trackers=trackers,
    )  # fmt: skip


class Log:
    """Written by the main process. An interrupted run that goes on writes the lines of one that was not interrupted.

    Args:
        workdir: of the run.
        step: where the run resumes; later lines are removed.
        unwritten: lines up to that step that an earlier start could not write.
        written: called when the lines have to be where the run is kept, before a checkpoint that counts on them.
        evaluates: whether the run resumes with the evaluation of that step, which writes its line again.
        trackers: get every line too.

    Raises:
        UnwrittenError: if the log cannot be written.
    """

    def __init__(
        self,
        workdir: Path,
        step: int,
        unwritten: Sequence[Mapping[str, Any]] = (),
        *,
        evaluates: bool = False,
        written: Callable[[], None] = lambda: None,
        trackers: Trackers | None = None,
    ) -> None:
        self._written = written
        self._trackers = trackers
        self._path = workdir / LINES
        self.unwritten: list[Mapping[str, Any]] = []
        """Lines that could not be written."""
        with writing(self._path):
            self._begin(step, unwritten, evaluates)
        self._board = _Board(workdir / BOARD, step)

    def line(self, line: Line) -> None:
        """
        Raises:
            UnwrittenError: if it cannot be written; then :attr:`unwritten` has it.
        """
        self._write(TRAINING, line.step, line.values())

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises as :meth:`line` does."""
        self._write(VALIDATION, step, metrics)

    def flush(self) -> None:
        """Puts the lines on the disk, before a checkpoint that counts on them.

        Raises:
            UnwrittenError: if that fails.
        """
        if self._path.exists():
            with writing(self._path), self._path.open("ab") as file:
                os.fsync(file.fileno())
        self._written()

    def close(self) -> None:
        with suppress(UnwrittenError):  # TensorBoard's file; whoever wrote last has told
            self._board.close()
        if self._trackers is not None:
            self._trackers.close()

    def _begin(self, step: int, unwritten: Sequence[Mapping[str, Any]], evaluates: bool) -> None:
        kept = [line for line in [*_whole_lines(self._path), *unwritten] if line["step"] <= step]
        if evaluates:
            kept = [line for line in kept if (line["step"], line["of"]) != (step, VALIDATION)]
        if kept or self._path.exists():
            aside = self._path.with_suffix(".part")
            aside.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
            aside.replace(self._path)

    def _write(self, of: str, step: int, values: Mapping[str, Any]) -> None:
        finite = {
            name: value if not isinstance(value, float) or math.isfinite(value) else None
            for name, value in values.items()
        }
        line = {"step": step, "of": of, **finite}
        try:
            if self.unwritten:  # the order must stay
                raise UnwrittenError(f"{self._path} lacks an earlier line.")
            with writing(self._path), self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except UnwrittenError:
            self.unwritten.append(line)
            raise
        scalars = {f"{of}/{name}": value for name, value in finite.items() if value is not None}
        self._board.write(step, scalars)
        if self._trackers is not None:
            self._trackers.write(step, scalars)


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
    return [line for line in found if isinstance(line, dict) and isinstance(line.get("step"), int) and "of" in line]
