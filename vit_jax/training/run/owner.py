"""Who holds a work directory, and whether that process lives."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import stat
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """Who holds a work directory."""

    host: str
    pid: int
    since: str
    """UTC, to the second."""
    token: str
    """Random; tells two owners apart whatever their numbers."""
    machine: str
    """Of its process table: an identifier of the running kernel and of the container's processes; empty if unknown."""
    born: str
    """When the process began, in the kernel's own units; empty if unknown. Process numbers are used again."""

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), os.getpid(), since, secrets.token_hex(16), _machine(), _born(os.getpid()))

    @classmethod
    def read(cls, path: Path) -> Owner | None:
        """``None`` if there is no such file, or it does not name an owner.

        Raises:
            OSError: if it cannot be read.
        """
        found = state_of(path)
        try:
            values = json.loads(found[1] if found else b"")
            owner = cls(**{field.name: values[field.name] for field in fields(cls)})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        texts = (owner.host, owner.since, owner.token, owner.machine, owner.born)
        return owner if isinstance(owner.pid, int) and all(isinstance(text, str) for text in texts) else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since} UTC"

    def lives(self) -> bool | None:
        """Whether the process runs; ``None`` if that cannot be seen from here."""
        if not self.machine or self.machine != _machine() or not self.born:
            return None
        return _born(self.pid) == self.born


def state_of(path: Path) -> tuple[int, bytes] | None:
    """Modification time and content; a network file system asks its server when a file is opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise OSError(errno.EINVAL, f"{path.name} is not a regular file")
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns, file.read(4096)
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ENOENT, f"{path.name} is a link that leads nowhere") from None
        return None


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Linux: ticks between the start of the machine and that of the process; empty if it has ended or is unknown."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]  # a zombie has ended; its parent has not looked yet
