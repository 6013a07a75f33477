"""One owner for each work directory in a bucket: the lock of :mod:`vit_jax.training.run.lock`, by conditional writes.

The object ``owner.json`` names the owner, and a number that its beats count. The store writes it only if it still has
the version that the writer saw, so of two processes one wins, and an owner that lost it sees that at its next beat. No
clock but the own one is read: whether an object stays as it is can be watched.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Self

from conversion.store import Objects, StoreError
from vit_jax.training.run.lock import FILE, LEASE, held_by
from vit_jax.training.run.owner import Owner
from vit_jax.training.run.writing import UnwrittenError

_BEAT = 5.0
"""Seconds between two signs of life: a store takes one write of an object per second."""


class Lease:
    """Holds a work directory in a bucket until :meth:`release`; use it as a context manager.

    Args:
        on_message: gets a sentence before it waits.

    Raises:
        VitportError: if a living process holds it, or the store cannot be written.
    """

    def __init__(self, objects: Objects, on_message: Callable[[str], None] = lambda sentence: None) -> None:
        self._objects, self._on_message = objects, on_message
        self._owner, self._beats = Owner.here(), 0
        self.trouble: str | None = None
        """A sentence once this process no longer owns the directory, or cannot write it."""
        self._ended, self._turn = threading.Event(), threading.Lock()
        self._version = self._acquired()
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._beat, name="work directory's lease", daemon=True)
        self._thread.start()

    @property
    def token(self) -> str:
        """Tells this owner from all others."""
        return self._owner.token

    def check(self) -> None:
        """Looks whether this process owns the directory, unless it just did.

        Raises:
            UnwrittenError: if it no longer does, or cannot write it.
        """
        if time.monotonic() - self._last > 2 * _BEAT:
            self._renew()
        if self.trouble is not None:
            raise UnwrittenError(self.trouble)

    def release(self) -> None:
        """Deletes the lock if it is this process's. Releasing twice is harmless."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        with self._turn:
            if self.trouble is None:
                try:
                    self._objects.write_if(FILE, None, self._version)
                except StoreError:  # the next start finds that this process has ended
                    return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _acquired(self) -> bytes:
        while True:
            content, version = self._objects.read_version(FILE)
            if content is not None:
                self._refuse_living(owner_of(content), version)
            new = self._objects.write_if(FILE, self._content(), version)
            if new is not None:
                return new

    def _refuse_living(self, other: Owner | None, version: bytes) -> None:
        lives = None if other is None else other.lives()
        if lives is None:
            lives = not self._stays(version, 2 * _BEAT)
            if not lives:
                who = "no process that can be read" if other is None else str(other)
                self._on_message(
                    f"{self._objects.address} is in use by another run ({who}) that seems dead: waiting {LEASE:.0f} "
                    "seconds for a sign of life"
                )
                lives = not self._stays(version, LEASE - 2 * _BEAT)
            if lives and self._objects.read(FILE) is None:  # released meanwhile
                return
        if lives and other is not None:
            raise held_by(self._objects.address, other)

    def _stays(self, version: bytes, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, seconds))
            if self._objects.versions([FILE]) != [version]:
                return False
        return True

    def _content(self) -> bytes:
        self._beats += 1
        return (json.dumps({**asdict(self._owner), "beat": self._beats}, indent=2) + "\n").encode()

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT) and self.trouble is None:
            self._renew()

    def _renew(self) -> None:
        with self._turn:
            if self._ended.is_set() or self.trouble is not None:
                return
            try:
                new = self._objects.write_if(FILE, self._content(), self._version)
                if new is None:
                    self.trouble = self._loss(self._objects.read(FILE))
                    return
                self._version, self._last = new, time.monotonic()
            except StoreError as error:
                if time.monotonic() - self._last > LEASE / 2:  # before another may think it dead
                    self.trouble = f"{self._objects.address} cannot be written any more: {error}"

    def _loss(self, content: bytes | None) -> str:
        where = self._objects.address
        if content is None:
            return (
                f"{where} was deleted or moved while the run wrote to it, since its {FILE} is gone: put it back, or "
                "choose another work directory, and run again."
            )
        return (
            f"{where} was taken over by another run ({owner_of(content) or 'of no name'}), because this one gave no "
            f"sign of life for {LEASE:.0f} seconds: leave it to that process."
        )


def refuse_held(objects: Objects) -> None:
    """Refuses at once where a process that can be seen holds the directory. Writes nothing, and waits for nothing.

    Raises:
        VitportError: naming the process; or if the store cannot be read.
    """
    content = objects.read(FILE)
    other = None if content is None else owner_of(content)
    if other is not None and other.lives():
        raise held_by(objects.address, other)


def owner_of(content: bytes) -> Owner | None:
    """The owner that the object names."""
    try:
        values = json.loads(content)
        owner = Owner(**{field.name: values[field.name] for field in fields(Owner)})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return owner if isinstance(owner.pid, int) else None
