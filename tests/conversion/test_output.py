"""Files written in pieces. Oracle: the bytes that were given, and what the file system is asked for."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from conversion.containers import output
from conversion.containers.output import Output

PIECE = 8192
LENGTHS = [0, 1, 4095, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, 9 * PIECE + 17]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_PIECE", PIECE)


def bytes_of(length: int) -> bytes:
    return np.random.default_rng(length).bytes(length)


@pytest.mark.parametrize("first", LENGTHS)
@pytest.mark.parametrize("second", LENGTHS)
def test_what_is_written_arrives(tmp_path: Path, first: int, second: int) -> None:
    parts = [bytes_of(first), b"", np.frombuffer(bytes_of(second), np.uint8).data, bytes_of(3)]
    with Output(tmp_path / "w") as file:
        for at, part in enumerate(parts):
            assert file.position == sum(len(part) for part in parts[:at])
            file.write(part)
    assert (tmp_path / "w").read_bytes() == b"".join(parts)


def test_arrays_of_any_dtype_are_written_as_their_bytes(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(70, 90))
    with Output(tmp_path / "w") as file:
        file.write(array.data)
        assert file.position == array.nbytes
    assert (tmp_path / "w").read_bytes() == array.tobytes()


@pytest.mark.parametrize("at", [0, 8, PIECE - 2, 3 * PIECE + 5])
def test_a_patch_replaces_earlier_bytes(tmp_path: Path, at: int) -> None:
    content = bytes_of(3 * PIECE + 50)
    with Output(tmp_path / "w") as file:
        file.patch(at, b"patch")
        file.write(content)
    assert (tmp_path / "w").read_bytes() == content[:at] + b"patch" + content[at + 5 :]


def test_a_longer_file_of_that_name_is_cut(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(bytes_of(4 * PIECE))
    with Output(tmp_path / "w") as file:
        file.write(b"short")
    assert (tmp_path / "w").read_bytes() == b"short"


@pytest.mark.parametrize("refused_by", ["open", "write"])
def test_a_file_system_that_wants_all_through_its_cache_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_by: str
) -> None:
    """As tmpfs, FUSE and others do: the flag is refused when the file is opened, or when it is written."""
    real_open, real_write = os.open, os.write

    def refusing_open(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & output._DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_open(path, flags, mode)

    def refusing_write(file: int, data: memoryview) -> int:
        if fcntl.fcntl(file, fcntl.F_GETFL) & output._DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_write(file, data)

    monkeypatch.setattr(os, refused_by, {"open": refusing_open, "write": refusing_write}[refused_by])
    content = bytes_of(6 * PIECE + 3)
    with Output(tmp_path / "w") as file:
        file.write(content)
    assert (tmp_path / "w").read_bytes() == content


def test_a_disk_that_takes_a_part_at_a_time_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[: max(1, len(data) // 3)]))
    content = bytes_of(2 * PIECE + 100)
    with Output(tmp_path / "w") as file:
        file.write(content)
    assert (tmp_path / "w").read_bytes() == content


@pytest.mark.parametrize("pieces", [0, 1, 20])
def test_a_full_disk_is_told_and_leaves_no_thread_and_no_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    def full(file: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="No space left"), Output(tmp_path / "w") as file:
        file.write(bytes_of(pieces * PIECE + 5))
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == before


def test_an_error_of_the_writer_is_the_one_that_comes_out(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"), Output(tmp_path / "w") as file:
        file.write(bytes_of(3 * PIECE))
        raise KeyError("mine")
