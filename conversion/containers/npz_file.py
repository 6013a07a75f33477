"""NumPy's ``.npz``: a zip archive with one ``.npy`` member for each array. Pickled members are never opened.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html describes the members.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.containers.crc32 import crc32
from conversion.containers.file_checks import check_size
from conversion.containers.output import Output
from conversion.containers.pickles import flat_arrays
from conversion.containers.stored_zip import StoredZip
from conversion.containers.subtree import branch
from conversion.containers.wall import wall, walled
from conversion.containers.zip_member import checked_offset, content_offset
from conversion.identify.quantised import quantised
from conversion.source import Source
from conversion.tensors import buffers
from conversion.tensors.contiguous import contiguous
from conversion.tensors.table import BFLOAT16, Tensor, TensorTable
from vit_spec import VitportError

_CHUNK = 1 << 19
"""Bytes that are read at a time."""
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_LONE = np.lib.format.MAGIC_PREFIX
"""How a ``.npy`` file begins."""
_VOID = np.dtype("V2")
"""NumPy has no bfloat16 and saves it as two bytes of unknown meaning."""


def begins_as_one(path: Path) -> bool:
    """A zip archive whose first member is an array."""
    with path.open("rb") as file:
        start = file.read(30)
        name = file.read(int.from_bytes(start[26:28], "little"))
    return start.startswith(b"PK") and name.endswith(b".npy")


def recognises(path: Path) -> bool:
    """An archive by its content or its name, or one array alone, which ``read`` refuses."""
    with path.open("rb") as file:
        start = file.read(len(_LONE))
    return start.startswith(_LONE) or begins_as_one(path) or (start.startswith(b"PK") and path.suffix == ".npz")


@walled("npz file")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open an archive: shapes and dtypes come from the members' headers; each array is read when it is used.

    Args:
        weights_key: read only the names under this path, such as ``params``.

    Raises:
        VitportError: for a damaged archive, one that would unpack to far more than its size, a name that occurs twice,
            or arrays of Python objects, which only a pickle could read.
    """
    _check_archive(path)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        _check(path, infos)
        strange = [info for info in infos if not info.filename.endswith(".npy")]
        for info in strange:  # the name may be damaged: opening compares it with that before the member
            archive.open(info).close()
        members = [_member(path, archive, info) for info in infos if info not in strange]
    others = [info.filename for info in strange]
    others += [f"{member.name} ({member.dtype})" for member in members if not _is_number(member.dtype)]
    table, notes = branch(path, TensorTable({m.name: m.tensor() for m in members if _is_number(m.dtype)}), weights_key)
    if others:
        notes += (f"set aside because they are not arrays of numbers: {', '.join(others)}",)
    return Source(path, "NumPy npz", table, (path,), notes=notes)


def write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    """Write a table as ``numpy.savez`` does, but with one tensor at a time in memory.

    Only tensors are written: readers of these files refuse names that they do not know.
    """
    del checkpoint
    with Output(path) as file:
        archive = StoredZip(file)
        for name, array in table.in_turn(sorted(table)):
            progress(name)
            archive.add(f"{name}.npy", (_header(array), contiguous(array).reshape(-1).view(np.uint8).data))
        archive.finish()


def _header(array: np.ndarray) -> bytes:
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, header)
    return text.getvalue()


def _check_archive(path: Path) -> None:
    """Refuse a ``.npy`` file: one array, or a pickle of the tree that somebody gave to ``numpy.save``."""
    with path.open("rb") as file:
        if file.read(len(_LONE)) != _LONE:
            return
    opened = f"numpy.load({path.name!r}, allow_pickle=True).item()"
    raise VitportError(
        f"{path} is a .npy file, which holds one array, or a pickle, which could run code. If it is a tree of arrays "
        f"and you trust its origin, save them without a pickle: {flat_arrays(path, opened)}."
    )


def _check(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        twice = sorted({name.removesuffix(".npy") for name in names if names.count(name) > 1})
        raise VitportError(f"{path} holds {', '.join(twice)} more than once: it is damaged.")
    check_size(path, sum(info.file_size for info in infos), path.stat().st_size)


@dataclass(frozen=True)
class _Member:
    """One array in the archive."""

    path: Path
    info: zipfile.ZipInfo
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    start: int
    """Bytes of the header, after which the values begin."""

    def tensor(self) -> Tensor:
        dtype = BFLOAT16 if self.dtype == _VOID else self.dtype.newbyteorder("=")
        plain = self.is_stored and not self.fortran_order and len(self.shape) > 0
        return Tensor(self.shape, dtype, self.read, self.read_entry if plain else None)

    @property
    def is_stored(self) -> bool:
        return self.info.compress_type == zipfile.ZIP_STORED

    def read(self) -> np.ndarray:
        """The whole array, checked against the archive's checksum."""
        array = buffers.empty(self.shape[::-1] if self.fortran_order else self.shape, self.dtype)
        view = array.reshape(-1).view(np.uint8).data
        if self.is_stored:
            self._read_stored(view)
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.info) as member:
                member.read(self.start)  # not seek, which would drop the checksum
                for at in range(0, len(view), _CHUNK):
                    _fill(member, view[at : at + _CHUNK])
        array = _native(array)
        return array.T if self.fortran_order else array

    def read_entry(self, at: int) -> np.ndarray:
        """One entry of axis 0, without the rest; the first call checks the whole member's checksum."""
        offset, count = self._checked_offset, math.prod(self.shape[1:])
        array = np.fromfile(self.path, self.dtype, count, offset=offset + at * count * self.dtype.itemsize)
        return _native(array.reshape(self.shape[1:]))

    def _read_stored(self, view: memoryview) -> None:
        """Read straight from the file into the array: the library would copy twice and parse the index again."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._offset)
            checksum = crc32(file.read(self.start))
            at = 0
            while at < len(view):
                count = file.readinto(view[at : at + _CHUNK])
                if not count:
                    raise EOFError("it ends too early")
                checksum = crc32(view[at : at + count], checksum)  # while it is in the CPU cache
                at += count
        if checksum != self.info.CRC:
            raise ValueError("its checksum differs")

    @cached_property
    def _checked_offset(self) -> int:
        """Where an uncompressed member's values begin in the file, once its checksum has been verified."""
        return checked_offset(self.path, self.info) + self.start

    @cached_property
    def _offset(self) -> int:
        """Where an uncompressed member's content begins in the file, after its name and extra field."""
        return content_offset(self.path, self.info)


def _native(array: np.ndarray) -> np.ndarray:
    return array.view(BFLOAT16) if array.dtype == _VOID else array.astype(array.dtype.newbyteorder("="), copy=False)


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    name = info.filename.removesuffix(".npy")
    with wall(path, f"is damaged at {name}"), archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        shape, fortran_order, dtype = _HEADERS[version](file)
        start = file.tell()
    if dtype.hasobject:
        raise VitportError(
            f"{path} holds Python objects in {name}, and unpickling them could run code. If you trust its origin, save "
            f"its arrays without a pickle: {flat_arrays(path, _opened(path, name, shape))}."
        )
    if dtype == np.dtype("V1"):  # as numpy stores ml_dtypes' float8 and int4
        raise quantised(name, "V1, a byte of unknown meaning")
    if min(shape, default=0) < 0 or start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise VitportError(
            f"{path} is damaged: {name} says it is {shape} of {dtype}, but holds {info.file_size - start} bytes."
        )
    return _Member(path, info, name, shape, dtype, fortran_order, start)


def _opened(path: Path, name: str, shape: tuple[int, ...]) -> str:
    """The Python expression for an object in the archive."""
    return f"numpy.load({path.name!r}, allow_pickle=True)[{name!r}]" + ("" if shape else ".item()")


def _fill(member: IO[bytes], view: memoryview) -> None:
    at = 0
    while at < len(view):
        chunk = member.read(len(view) - at)
        if not chunk:
            raise EOFError("it ends too early")
        view[at : at + len(chunk)] = chunk
        at += len(chunk)


def _is_number(dtype: np.dtype) -> bool:
    return dtype.kind in "fiub" or dtype == _VOID
