"""A file that is written from its beginning to its end.

What is written goes to the disk at once, beside the work on what follows, and past the system's cache where the file
system lets it: it is not read again soon, and caching gigabytes would cost as much as another copy.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from conversion.tensors import buffers

_PIECE = 4 << 20
"""Bytes that are written at a time, from memory and to an offset that are multiples of a page, as disks ask for."""
_PIECES = 3
"""Pieces in memory: one is filled while others are written."""
_DIRECT: int = getattr(os, "O_DIRECT", 0)
"""Linux alone has it; elsewhere everything goes through the system's cache."""
_BINARY: int = getattr(os, "O_BINARY", 0)
"""Windows alone has it, and would write a line break as two bytes without."""


class Output:
    """A new file, whole when its ``with`` has been left; ``write`` takes all that it is given."""

    def __init__(self, path: Path) -> None:
        self._file = _opened(path)
        self._writer = ThreadPoolExecutor(1)
        self._flying: deque[Future[np.ndarray]] = deque()
        self._piece = buffers.pages(_PIECE)
        self._filled = 0
        self._sent = 0
        self._patches: list[tuple[int, bytes]] = []

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self._sent + self._filled

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            OSError: if the disk does not take these or earlier ones.
        """
        source = np.frombuffer(data, np.uint8) if memoryview(data).nbytes else np.empty(0, np.uint8)
        while len(source):
            count = min(len(source), _PIECE - self._filled)
            np.copyto(self._piece[self._filled : self._filled + count], source[:count])
            self._filled += count
            source = source[count:]
            if self._filled == _PIECE:
                self._send()

    def patch(self, at: int, data: bytes) -> None:
        """Put other bytes in the place of earlier ones, at the end of all writing."""
        self._patches.append((at, data))

    def _send(self) -> None:
        self._flying.append(self._writer.submit(self._put, self._piece, self._filled, self._sent))
        self._sent += self._filled
        self._filled = 0
        self._piece = buffers.pages(_PIECE) if len(self._flying) < _PIECES else self._flying.popleft().result()

    def _put(self, piece: np.ndarray, count: int, at: int) -> np.ndarray:
        """Write the beginning of a piece; the piece comes back to be filled again."""
        done = 0
        while done < count:
            try:
                done += _write_at(self._file, piece[done:count].data, at + done)
            except OSError as error:
                # What a full disk takes of a piece is not a complete number of pages, nor is a file's last piece.
                if error.errno != errno.EINVAL or not _through_cache(self._file):
                    raise
        if hasattr(os, "posix_fadvise"):
            # What went into the cache all the same goes on to the disk: Linux writes out what is not needed again.
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._file, at, count, os.POSIX_FADV_DONTNEED)
        return piece

    def _finish(self) -> None:
        if self._filled:
            self._send()
        while self._flying:
            self._flying.popleft().result()
        _through_cache(self._file)
        for at, data in self._patches:
            _write_at(self._file, data, at)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._writer.shutdown(cancel_futures=True)
            os.close(self._file)


def _opened(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY
    try:
        return os.open(path, flags | _DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:  # so answers a file system where all goes through the cache
            raise
        return os.open(path, flags, 0o666)


def _write_at(file: int, data: bytes | memoryview, at: int) -> int:
    """As ``os.pwrite``, which Windows lacks; one thread at a time uses the file's position."""
    os.lseek(file, at, os.SEEK_SET)
    return os.write(file, data)


def _through_cache(file: int) -> bool:
    """Send later writes through the system's cache; returns whether they bypassed it until now."""
    if not _DIRECT:
        return False
    import fcntl  # absent on Windows

    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    fcntl.fcntl(file, fcntl.F_SETFL, flags & ~_DIRECT)
    return bool(flags & _DIRECT)
