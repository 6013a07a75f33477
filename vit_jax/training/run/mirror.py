"""A work directory in a bucket: a folder on each host's own disk, and what a run must not lose, in the bucket.

Everything is written to the disk first, as if there were no bucket. Log, configuration and TensorBoard's files follow
as whole objects: every few seconds, and before each checkpoint. Each process puts its own files of a checkpoint under
``checkpoints/STEP/``, and then an object that lists them with their SHA-256. When all have, the first process writes
``sha256.json``: with it the checkpoint is complete, and without it there is none, whatever else is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from conversion.containers.checksums import NAME as CHECKSUMS
from conversion.containers.checksums import sha256
from conversion.store import Objects, StoreError
from conversion.store.fetch import copy
from vit_jax.training.run.keeping import METRICS, PARTS, RECORD
from vit_jax.training.run.lock import FILE
from vit_jax.training.run.writing import UnwrittenError

CHECKPOINTS = "checkpoints"
_COMPLETE = re.compile(rf"{CHECKPOINTS}/(0|[1-9]\d{{0,17}})/{re.escape(CHECKSUMS)}")
_LISTS = ".lists"
"""Below a checkpoint: what each process put there, until it is complete."""
_CONTINUED = ("metrics.jsonl", "config.json", "trackers.json", "mlruns")
"""What a run that goes on adds to."""
_BEAT = 10.0
"""Seconds between two writes of what changed."""
_PATIENCE = 900.0
"""Seconds that the first process waits for the others' files."""


class Mirror:
    """The folder and the bucket of one process. A context manager, which writes the rest and removes the folder.

    Args:
        objects: of the work directory.
        index: number of this process, of so many.
    """

    def __init__(self, objects: Objects, index: int, count: int) -> None:
        self.objects, self.index, self._count = objects, index, count
        name = hashlib.sha256(objects.address.encode()).hexdigest()[:12]
        _remove_dead(f"vitport-{name}-")
        self.folder = Path(tempfile.mkdtemp(prefix=f"vitport-{name}-{os.getpid()}-"))
        self.token = ""
        """Of the owner, whom all processes serve; tells an attempt to save from those of earlier owners."""
        self.check: Callable[[], None] = lambda: None
        """Called before a checkpoint becomes complete; raises if this run no longer owns the work directory."""
        self.complete: set[int] = set()
        """Steps whose checkpoints are complete."""
        self._attempts = 0
        self._written: dict[str, tuple[int, int]] = {}
        self._ended, self._turn = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self.trouble: str | None = None
        """A sentence once the log cannot be written."""

    def begin(self, token: str) -> None:
        """Fetches what is known of the run, but for the states of its checkpoints, and starts to follow the folder.

        Raises:
            VitportError: if the store cannot be read.
        """
        self.token = token
        names = self.objects.names()
        if FILE not in names:  # else the run would begin again, beside checkpoints that it does not see
            raise StoreError(
                f"{self.objects.address} cannot be listed, since {FILE} is there: let this account list objects."
            )
        self.complete = {int(found[1]) for name in names if (found := _COMPLETE.fullmatch(name))}
        small = {f"{CHECKPOINTS}/{step}/{part}" for step in self.complete for part in (RECORD, METRICS)}
        wanted = [name for name in names if any(name.startswith(f"{part}/") for part in small)]
        if self.index == 0:
            wanted += [name for name in names if name.split("/")[0] in _CONTINUED]
            self._remove_incomplete(names)
        copy(self.objects, wanted, self.folder)
        if self.index == 0:
            self._thread = threading.Thread(target=self._follow, name="work directory's mirror", daemon=True)
            self._thread.start()

    def fetch(self, step: int) -> None:
        """The whole checkpoint, which :func:`~conversion.containers.checksums.check_checksums` then verifies.

        Raises:
            VitportError: if an object of it is gone, or the store cannot be read.
        """
        below = f"{CHECKPOINTS}/{step}/"
        copy(self.objects, [name for name in self.objects.names(below) if f"/{_LISTS}/" not in name], self.folder)

    def save(self, step: int) -> None:
        """Puts this process's files of a checkpoint into the bucket; the first process waits until all did so.

        Raises:
            UnwrittenError: if that fails.
        """
        self._attempts += 1
        try:
            self._save(step, f"{CHECKPOINTS}/{step}", f"{self.token}-{self._attempts}-")
        except StoreError as error:
            where = self.objects.address
            raise UnwrittenError(f"Checkpoint {step} could not be written to {where}: {error}") from error
        self._keep_small(step)
        self.complete.add(step)

    def has(self, step: int) -> bool:
        """Whether the bucket still has the checkpoint.

        Raises:
            StoreError: if the store cannot be read.
        """
        return self.objects.versions([f"{CHECKPOINTS}/{step}/{CHECKSUMS}"]) != [None]

    def put_metrics(self, step: int) -> None:
        """An evaluation that was added to a checkpoint."""
        name = f"{CHECKPOINTS}/{step}/{METRICS}/{METRICS}"
        self._telling(lambda: self.objects.write(name, (self.folder / name).read_bytes()))

    def remove(self, step: int) -> None:
        """Removes a checkpoint, of which it then is no longer one, before its files."""
        self.complete.discard(step)
        below = f"{CHECKPOINTS}/{step}/"
        if self.index == 0:
            self.objects.delete([f"{below}{CHECKSUMS}"])
            self.objects.delete(self.objects.names(below))
        shutil.rmtree(self.folder / CHECKPOINTS / str(step), ignore_errors=True)

    def set_aside(self, step: int, name: str) -> None:
        """Copies what is there of a checkpoint that cannot be read to another name, and removes it."""
        if self.index == 0:
            below, other = f"{CHECKPOINTS}/{step}/", f"{CHECKPOINTS}/{name}/"
            names = self.objects.names(below)
            for found, content in zip(names, self.objects.read_all((it, None) for it in names), strict=True):
                self.objects.write(other + found.removeprefix(below), content or b"")
        self.remove(step)

    def push(self) -> None:
        """Writes what changed in the folder beside checkpoints, each file as a whole object.

        Raises:
            UnwrittenError: if the store cannot be written.
        """
        if self.index:
            return
        with self._turn:
            changed = {}
            for file in self.folder.rglob("*"):
                name = file.relative_to(self.folder).as_posix()
                if not name.startswith(f"{CHECKPOINTS}/") and file.suffix != ".part" and file.is_file():
                    state = file.stat()
                    if self._written.get(name) != (state.st_mtime_ns, state.st_size):
                        changed[name] = (state.st_mtime_ns, state.st_size)
            contents = [(name, (self.folder / name).read_bytes) for name in sorted(changed)]
            self._telling(lambda: self.objects.write_all(contents))
            self._written |= changed

    def close(self) -> None:
        """Stops following, writes what is left, as far as that is possible, and removes the folder."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            with suppress(UnwrittenError):  # told already, or by what ended the run
                self.push()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _follow(self) -> None:
        while not self._ended.wait(_BEAT):
            try:
                self.push()
            except UnwrittenError as error:
                self.trouble = str(error)
                return
            except OSError:  # a file that was replaced while it was read
                continue

    def _save(self, step: int, below: str, attempt: str) -> None:
        folder = self.folder / below
        files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
        own = {name: file for name, file in sorted(files.items()) if self.index == 0 or _is_own(name)}
        self.objects.write_all((f"{below}/{name}", file.read_bytes) for name, file in own.items())
        sums = {name: sha256(file) for name, file in own.items() if PurePosixPath(name).parts[0] in PARTS}
        if self.index:
            self.objects.write(f"{below}/{_LISTS}/{attempt}{self.index}", json.dumps(sums).encode())
            return
        for other in self._lists(below, attempt):
            sums |= other
        self.check()
        self.objects.write(f"{below}/{CHECKSUMS}", json.dumps(dict(sorted(sums.items())), indent=2).encode())
        self.objects.delete(self.objects.names(f"{below}/{_LISTS}/"))

    def _lists(self, below: str, attempt: str) -> Iterable[dict[str, str]]:
        names = [f"{below}/{_LISTS}/{attempt}{index}" for index in range(1, self._count)]
        end = time.monotonic() + _PATIENCE
        while None in self.objects.versions(names):
            if self._ended.wait(0.3) or time.monotonic() > end:
                raise StoreError(
                    f"other processes did not write theirs within {_PATIENCE:.0f} seconds: their logs say why."
                )
        return [json.loads(content or b"{}") for content in self.objects.read_all((name, None) for name in names)]

    def _keep_small(self, step: int) -> None:
        """Frees the disk of what is in the bucket; which steps there are, and how good, must stay known."""
        for part in set(PARTS) - {RECORD}:
            shutil.rmtree(self.folder / CHECKPOINTS / str(step) / part, ignore_errors=True)

    def _remove_incomplete(self, names: Sequence[str]) -> None:
        """What a killed owner left, which nobody else writes to, since this process is the owner."""
        steps = {parts[1] for name in names if len(parts := name.split("/")) > 2 and parts[0] == CHECKPOINTS}
        gone = {step for step in steps if step.isdigit() and int(step) not in self.complete}
        self.objects.delete(name for name in names if name.split("/")[1:2] and name.split("/")[1] in gone
                            and name.startswith(f"{CHECKPOINTS}/"))  # fmt: skip

    def _telling(self, write: Callable[[], None]) -> None:
        try:
            write()
        except StoreError as error:
            raise UnwrittenError(f"{self.objects.address} cannot be written: {error}") from error


def _is_own(name: str) -> bool:
    """Whether a file is this process's alone: parts of arrays, and not what all write alike."""
    path = PurePosixPath(name)
    return path.parts[0] not in (RECORD, METRICS) and len(path.parts) > 2 and path.name[0] not in "._"


def _remove_dead(beginning: str) -> None:
    """Folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{beginning}*"):
        pid = folder.name.removeprefix(beginning).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc").is_dir():
            shutil.rmtree(folder, ignore_errors=True)
