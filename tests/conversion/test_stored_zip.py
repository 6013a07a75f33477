"""Our writer of zip archives. Oracle: Python's ``zipfile``, and ``unzip -t`` where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from conversion.containers import crc32
from conversion.containers.output import Output
from conversion.containers.stored_zip import StoredZip

CONTENT = {
    "a.npy": (b"head", np.random.default_rng(0).bytes(70_001)),
    "folder/b": (),
    "ünï": (b"x",),
    "c": (np.arange(5000, dtype=np.float32).data, b"tail"),
}


def write(path: Path, alignment: int = 1) -> None:
    with Output(path) as file:
        archive = StoredZip(file)
        for name, parts in CONTENT.items():
            archive.add(name, parts, alignment=alignment)
        archive.finish()


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_the_standard_library_reads_what_was_written(tmp_path: Path, alignment: int) -> None:
    write(tmp_path / "w.zip", alignment)
    with zipfile.ZipFile(tmp_path / "w.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == list(CONTENT)
        for name, parts in CONTENT.items():
            assert archive.read(name) == b"".join(bytes(part) for part in parts)
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


@pytest.mark.parametrize("alignment", [2, 64, 4096])
def test_contents_begin_at_multiples_of_the_alignment(tmp_path: Path, alignment: int) -> None:
    write(tmp_path / "w.zip", alignment)
    content = (tmp_path / "w.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "w.zip") as archive:
        for info in archive.infolist():
            name, extra = (int.from_bytes(content[info.header_offset + at :][:2], "little") for at in (26, 28))
            start = info.header_offset + 30 + name + extra
            assert start % alignment == 0
            assert content[start : start + info.file_size] == archive.read(info)


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
def test_unzip_finds_no_fault(tmp_path: Path) -> None:
    write(tmp_path / "w.zip", 64)
    subprocess.run(["unzip", "-tq", tmp_path / "w.zip"], check=True, capture_output=True)


def test_an_archive_of_nothing_is_one(tmp_path: Path) -> None:
    with Output(tmp_path / "w.zip") as file:
        StoredZip(file).finish()
    with zipfile.ZipFile(tmp_path / "w.zip") as archive:
        assert archive.namelist() == []


@pytest.mark.parametrize("length", [0, 1, 15, 16, 255, 4097, 100_003])
def test_the_fast_checksum_is_zlibs(length: int) -> None:
    """In one run and continued, over bytes and arrays."""
    content = np.random.default_rng(length).bytes(length)
    assert crc32.crc32(content) == zlib.crc32(content)
    assert crc32.crc32(content, 12345) == zlib.crc32(content, 12345)
    assert crc32.crc32(np.frombuffer(content, np.uint8), 1 << 31) == zlib.crc32(content, 1 << 31)
