"""From a file or folder on this machine into a bucket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from conversion.store.objects import Objects
from vit_spec import VitportError
from vit_spec.address import in_store

_DESCRIBING = (".json", "_METADATA", "_CHECKPOINT_METADATA", ".ocdbt")
"""What the objects that say what lies beside them end in: without them nothing reads the others."""


def put(path: Path, address: str, *, overwrite: bool) -> None:
    """Writes a file as an object, or a folder as objects below an address.

    Of a folder the describing files go last, and old ones are removed first, so that no reader takes part of it, or a
    mixture of old and new, for the whole.

    Raises:
        VitportError: if something is there and ``overwrite`` is not given, or the store cannot be written.
    """
    if path.is_file():
        beside, name = Objects.holding(address)
        _check_free(Objects(address).names() or beside.versions([name]) != [None], address, overwrite)
        beside.write(name, path.read_bytes())
        return
    objects = Objects(address)
    old = objects.names()
    _check_free(old, address, overwrite)
    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    objects.delete(name for name in old if name.endswith(_DESCRIBING))
    objects.delete(name for name in old if not name.endswith(_DESCRIBING) and name not in files)
    for describing in (False, True):
        objects.write_all(
            (name, file.read_bytes) for name, file in files.items() if name.endswith(_DESCRIBING) == describing
        )


@contextmanager
def made_here(destination: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """Where to write a file or folder: its path, or for a bucket one on this machine, which is put there at the end.

    Raises:
        VitportError: as :func:`put` does.
    """
    if not in_store(destination):
        yield Path(destination)
        return
    with tempfile.TemporaryDirectory(prefix="vitport-") as folder:
        path = Path(folder) / PurePosixPath(str(destination).rstrip("/")).name
        yield path
        put(path, str(destination), overwrite=overwrite)


def check_free(address: str, *, overwrite: bool) -> None:
    """
    Raises:
        VitportError: if something is at the address already.
    """
    beside, name = Objects.holding(address)
    _check_free(Objects(address).names() or beside.versions([name]) != [None], address, overwrite)


def _check_free(taken: object, address: str, overwrite: bool) -> None:
    if taken and not overwrite:
        raise VitportError(
            f"{address} exists already: choose another destination, or pass overwrite=True (--overwrite)."
        )
