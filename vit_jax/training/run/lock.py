"""One owner for each work directory: a lease that its owner renews, and that outlives no owner.

The file ``owner.json`` names the owner: host, process, since when. A second process is refused while the owner lives.
On the owner's own machine the process table tells; elsewhere (another host of a shared file system, another container)
the file's modification time, which a living owner changes every few seconds. So the lock needs no ``flock``, which
network file systems may lack or keep to one host, and no common clock. A dead owner is replaced by exactly one of those
that try: creating a file exclusively, and renaming one over another, are atomic.

The processes of one run share the lock, which their first process holds.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

from vit_jax.training.run.owner import Owner, state_of
from vit_jax.training.run.writing import UnwrittenError
from vit_spec import VitportError

FILE = "owner.json"
_BEAT = 3.0
"""Seconds between two signs of life."""
LEASE = 60.0
"""Seconds without one after which an owner that cannot be seen is dead; and without being able to give one after which
an owner gives up."""
_held: set[Lock] = set()


class Lock:
    """Holds a work directory until :meth:`release`; use it as a context manager.

    Args:
        workdir: made if it does not exist.
        on_message: gets a sentence before it waits.

    Raises:
        VitportError: if a living process holds it, or the lock cannot be written.
    """

    def __init__(self, workdir: Path, on_message: Callable[[str], None] = lambda sentence: None) -> None:
        self._on_message = on_message
        self._path = (workdir / FILE).absolute()
        self._made: list[Path] = []
        self._owner = Owner.here()
        self.trouble: str | None = None
        """A sentence once this process no longer owns the directory, or cannot write it."""
        self._ended = threading.Event()
        try:
            self._made = _missing(self._path.parent)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            raise VitportError(
                f"{workdir} cannot be written ({error.strerror or error}): choose another work directory."
            ) from error
        _held.add(self)
        self._sweep()
        threading.Thread(target=self._beat, name="work directory's lease", daemon=True).start()

    def check(self) -> None:
        """Reads the lock again.

        Raises:
            UnwrittenError: if this process no longer owns the directory, or cannot write it.
        """
        with suppress(OSError):  # a passing trouble; the lease counts how long it lasts
            self._look()
        if self.trouble is not None:
            raise UnwrittenError(self.trouble)

    def release(self) -> None:
        """Removes the lock, and folders that it made and that are empty. Releasing twice is harmless."""
        self._ended.set()
        if self not in _held:
            return
        _held.discard(self)
        with suppress(OSError):
            if self._look():
                self._path.unlink()
                for folder in self._made:
                    folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _acquire(self) -> None:
        own = self._path.with_name(f"{FILE}.{self._owner.token}")
        own.write_text(json.dumps(asdict(self._owner), indent=2) + "\n")
        try:
            while not _create(self._path, own):
                other = Owner.read(self._path)
                if other is not None:
                    self._refuse_living(other)
                    self._replace(other, own)
                elif self._is_abandoned():
                    self._path.unlink(missing_ok=True)
                else:
                    continue
                if Owner.read(self._path) == self._owner:
                    return
        finally:
            own.unlink(missing_ok=True)

    def _is_abandoned(self) -> bool:
        """Whether a lock that names no owner stays as it is: half written, by a process that may have died."""
        if not _stays(self._path, 2 * _BEAT):
            return False
        self._on_message(f"{self._path} names no owner: waiting {LEASE:.0f} seconds for a sign of life")
        return _stays(self._path, LEASE - 2 * _BEAT)

    def _sweep(self) -> None:
        """Removes what processes left that were killed while they tried to get the lock."""
        for path in self._path.parent.glob(f"{FILE}.*"):
            with suppress(OSError):
                if self._path.stat().st_mtime - path.stat().st_mtime > LEASE:
                    path.unlink()

    def _refuse_living(self, other: Owner) -> None:
        lives = other.lives()
        if lives is None:
            if not _stays(self._path, 2 * _BEAT):
                lives = Owner.read(self._path) == other  # else released, or replaced
            else:
                self._on_message(
                    f"{self._path.parent} is in use by another run ({other}) that seems dead: waiting {LEASE:.0f} "
                    "seconds for a sign of life"
                )
                lives = not _stays(self._path, LEASE - 2 * _BEAT) and Owner.read(self._path) == other
        if lives:
            raise held_by(self._path.parent, other)

    def _replace(self, dead: Owner, own: Path) -> None:
        """Puts the own file in the place of a dead owner's, unless another process does."""
        turn = self._path.with_name(f"{FILE}.turn")
        if not _create(turn, own):  # another's turn; it takes an instant, unless that process was killed
            if _stays(turn, _BEAT):
                turn.unlink(missing_ok=True)
            return
        try:
            if Owner.read(self._path) == dead:
                own.replace(self._path)
        finally:
            turn.unlink(missing_ok=True)

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(_BEAT) and self.trouble is None:
            try:
                if self._look():
                    os.utime(self._path)
                last = time.monotonic()
            except OSError as error:
                if time.monotonic() - last > LEASE / 2:  # before another may think it dead
                    self.trouble = (
                        f"{self._path.parent} cannot be written any more ({error.strerror or error}): check it, and "
                        "run again to resume."
                    )

    def _look(self) -> bool:
        """Whether the lock is this process's, as the file says."""
        found = Owner.read(self._path)
        if found == self._owner:
            return True
        folder = self._path.parent
        if found is not None:
            self.trouble = (
                f"{folder} was taken over by another run ({found}), because this one gave no sign of life for "
                f"{LEASE:.0f} seconds: leave it to that process."
            )
        elif not self._path.exists():
            self.trouble = (
                f"{folder} was deleted, moved, unmounted or replaced while the run wrote to it, since its {FILE} is "
                "gone: put it back, or choose another work directory, and run again."
            )
        return False


def refuse_held(workdir: Path) -> None:
    """Refuses at once where a process that can be seen holds the directory. Writes nothing, and waits for nothing.

    Raises:
        VitportError: naming the process.
    """
    with suppress(OSError):
        other = Owner.read(workdir / FILE)
        if other is not None and other.lives():
            raise held_by(workdir, other)


def release_all() -> None:
    """Releases all locks of this process, which is about to end."""
    for lock in list(_held):
        lock.release()


def held_by(workdir: Path | str, owner: Owner) -> VitportError:
    return VitportError(
        f"{workdir} is in use by another run ({owner}): wait for it, stop it, or choose another work directory."
    )


def _stays(path: Path, seconds: float) -> bool:
    """Whether a file stays as it is for so long, even if other hosts see changes late. False as soon as it changes."""
    before, end = state_of(path), time.monotonic() + seconds
    while before is not None and time.monotonic() < end:
        time.sleep(min(0.2, seconds))
        if state_of(path) != before:
            return False
    return before is not None


def _create(path: Path, content: Path) -> bool:
    """Makes a file with the content of another unless it exists; whole from the first moment where links are known."""
    try:
        os.link(content, path)
        return True
    except FileExistsError:
        return False
    except (OSError, AttributeError, NotImplementedError):  # a file system, or a system, without links
        try:
            with path.open("xb") as file:
                file.write(content.read_bytes())
            return True
        except FileExistsError:
            return False


def _missing(folder: Path) -> list[Path]:
    """The folders that have to be made, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]
