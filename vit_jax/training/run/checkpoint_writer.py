"""Writing checkpoints in the background."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from conversion.containers.checksums import write_checksums
from vit_jax.training.background import Background
from vit_jax.training.devices.processes import LostProcessError, gather_messages, raise_on_all
from vit_jax.training.recipe.config import CheckpointOptions
from vit_jax.training.run.checkpoints import FOLDER, handlers, silence_orbax
from vit_jax.training.run.keeping import METRICS, PARTS, RECORD, kept, saved_steps, write_metrics
from vit_jax.training.run.mirror import Mirror
from vit_jax.training.run.state_tree import parts
from vit_jax.training.run.writing import UnwrittenError, writing
from vit_jax.training.step.update import TrainState

_TEMPORARY = re.compile(r"[0-9]+\.orbax-checkpoint-tmp.*")
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_LOOK = 3.0
"""Seconds between two looks at whether the checkpoints are still there."""
_ASK = 60.0
"""The same where a store is asked, which takes a moment of the run's time."""


class CheckpointWriter:
    """Writes the checkpoints of one work directory, which this run holds. A context manager, which ends its threads.

    Args:
        keep: how many checkpoints to keep.
        mirror: where the work directory is in a bucket, and each process has a folder of its own.
    """

    def __init__(self, workdir: Path, keep: CheckpointOptions, mirror: Mirror | None = None) -> None:
        self.folder = (workdir / FOLDER).absolute()
        self._mirror = mirror
        self._owns = mirror is not None or jax.process_index() == 0
        """Whether this process removes what is in the folder."""
        self.failed = False
        """Whether a write failed in this process."""
        self._keep = keep
        self._writing: int | None = None
        self._background: Background | None = None
        self._newest, self._looked = max(self.steps(), default=None), 0.0
        silence_orbax()
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        self._remove_unfinished()
        # Else its threads would wait, for twenty minutes, for folders that another thread could not make.
        waiting = ocp.options.AsyncOptions(
            create_directories_asynchronously=False,
            post_finalization_callback=None if mirror is not None else self._write_checksums,
        )
        shared = mirror is None or jax.process_count() == 1
        processes = ocp.options.MultiprocessingOptions(primary_host=0 if shared else None)
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(
                composite_options=ocp.CompositeOptions(async_options=waiting, multiprocessing_options=processes),
                **handlers(processes, shared=shared),
            ),
            async_options=waiting,
            multiprocessing_options=processes,
        )

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        return saved_steps(self.folder)

    def save(self, state: TrainState, record: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Starts to write in the background; the caller may change the state at once.

        A collective: all processes must call it.

        Args:
            record: what the weights mean, as JSON values.
            metrics: an evaluation of this state; the best checkpoints are those of the highest ``accuracy``.

        Raises:
            UnwrittenError: if this checkpoint, or the one before, could not be written.
        """
        step = int(np.asarray(state.step.addressable_shards[0].data))
        self.wait()  # one write at a time
        raise_on_all(self._check_present, UnwrittenError)
        with writing(self.folder):
            if step in self.steps():
                return
        saved = {name: ocp.args.StandardSave(tree) for name, tree in parts(state).items()}
        saved |= {RECORD: ocp.args.JsonSave(dict(record))}
        if metrics is not None:
            saved |= {METRICS: ocp.args.JsonSave(dict(metrics))}
        self._writing = step
        try:
            self._writer.save(self.folder / str(step), args=ocp.args.Composite(**saved))
        except Exception as error:  # besides errors of the system, orbax's own, which its threads raise
            raise self._unwritten(error) from error
        self._background = Background(partial(self._finish_writing, step))

    def poll(self) -> None:
        """Looks at the write in the background, and sometimes at whether the checkpoints are still there.

        Raises:
            UnwrittenError: if it failed, or they are gone.
        """
        if self._background is not None and self._background.done:
            self._finish()
        elif self._background is None and time.monotonic() - self._looked > (_LOOK if self._mirror is None else _ASK):
            self._check_present()

    def wait(self) -> None:
        """Waits until everything is on disk. A collective: all processes must call it.

        Raises:
            UnwrittenError: in all processes, if a checkpoint could not be written in one.
        """
        busy = True
        while busy:
            if self._background is not None:
                self._background.wait(0.2)
            raise_on_all(self.poll, UnwrittenError)
            busy = any(gather_messages("busy" if self._background is not None else ""))

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds an evaluation to a checkpoint that was saved without.

        Raises:
            UnwrittenError: if that cannot be written.
        """
        if jax.process_index() == 0:
            write_metrics(self.folder / str(step), metrics)
            if self._mirror is not None:
                self._mirror.put_metrics(step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """After another error a checkpoint is written to its end; for what is lost, or an impatient user, it is not."""
        lost = kind in (UnwrittenError, LostProcessError)
        self.close(None if kind is None else 5 if lost else 600 if issubclass(kind, Exception) else 0)

    def close(self, patience: float | None = None) -> None:
        """Ends the threads, and waits so many seconds for a write in the background; ``None``: as long as it takes."""
        if self._background is not None and not self._background.wait(patience):
            _silence_thread("async_save")
            return  # abandoned: the thread may wait forever, for a lost disk or another process
        try:
            self._writer.close()
        except Exception:  # told already, or the run ends by another error
            return
        if not self.failed:
            sys.unraisablehook = self._hook

    def _finish_writing(self, step: int) -> None:
        self._writer.wait_until_finished()
        if self._mirror is not None:
            self._mirror.save(step)

    def _finish(self) -> None:
        """Raises what the write in the background raised; else removes checkpoints that are no longer kept."""
        error = self._background.error if self._background is not None else None
        self._background = None
        if error is not None:
            raise self._unwritten(error) from error
        self._check_present()  # the one before: it goes only when this one is seen
        self._newest = self._writing
        self._check_present()
        with writing(self.folder):
            for step in set(self.steps()) - kept(self.folder, self._keep) if jax.process_index() == 0 else ():
                if self._mirror is not None:
                    self._mirror.remove(step)
                shutil.rmtree(self.folder / str(step), ignore_errors=True)

    def _check_present(self) -> None:
        self._looked = time.monotonic()
        newest = self._newest
        if newest is None or jax.process_index() > 0:
            return
        with writing(self.folder):
            gone = not (self._mirror.has(newest) if self._mirror else (self.folder / str(newest)).is_dir())
        if gone:
            self._newest = None  # what is saved from now on is all there is
            raise UnwrittenError(
                f"{self.folder} was deleted, moved or replaced while the run wrote to it, since checkpoint {newest} is "
                "gone: put it back, or run again."
            )

    def _remove_unfinished(self) -> None:
        """What a killed process or a failed write left."""
        if self._owns and self.folder.is_dir():
            for path in self.folder.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    shutil.rmtree(path, ignore_errors=True)

    def _write_checksums(self) -> None:
        if jax.process_index() == 0:
            # Orbax has written everything, and renames the folder next.
            (folder,) = (
                path
                for path in self.folder.iterdir()
                if _TEMPORARY.fullmatch(path.name) and path.name.split(".")[0] == str(self._writing)
            )
            write_checksums(folder, [part for part in PARTS if (folder / part).is_dir()])

    def _unwritten(self, error: BaseException) -> UnwrittenError:
        self.failed = True
        if isinstance(error, UnwrittenError):  # by the mirror
            return error
        with suppress(OSError):
            self._remove_unfinished()  # it may fill the disk
        self._check_present()  # the better reason
        found = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        reason = " ".join(str(error).split())[:300] if number is None else os.strerror(number)
        advice = "free disk space" if number in _FULL else "check the folder and its permissions"
        return UnwrittenError(
            f"Checkpoint {self._writing} could not be written to {self.folder} ({reason}): {advice} and run again."
        )

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Silences TensorStore's threads, which call an event loop that a failed write ended, long after."""
        if "Event loop is closed" not in str(unraisable.exc_value):
            self._hook(unraisable)


def _silence_thread(name: str) -> None:
    """Silences exceptions in orbax's threads of that name, which are not joined: the run tells itself why it ends."""
    hook = threading.excepthook

    def told(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or not args.thread.name.startswith(name):
            hook(args)

    threading.excepthook = told
