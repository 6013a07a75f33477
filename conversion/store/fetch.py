"""Copies on this machine of what lies in a bucket."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath

from conversion.containers.checksums import NAME as CHECKSUMS
from conversion.store.objects import LARGE, Objects
from vit_spec import VitportError

_STEP = re.compile(rf"checkpoints/(\d{{1,18}})/{re.escape(CHECKSUMS)}")
"""A checkpoint of a run is complete when its checksums are there."""
_UNREAD = "rest"
"""The part of a run's checkpoint that holds no weights."""
_LOOKING = 32
"""Objects whose size is looked at together."""


def fetched(address: str) -> Path:
    """The copy of a file or folder of weights, made once for each version of its objects.

    Of a run's work directory only the newest checkpoint is fetched, without its optimizer state.

    Raises:
        VitportError: if there is nothing, or the store cannot be read.
    """
    objects, names = _found(address)
    names = _needed(names)
    versions = objects.versions(names)
    told = json.dumps([address, *((name, str(version)) for name, version in zip(names, versions, strict=True))])
    goal = cache("objects") / hashlib.sha256(told.encode()).hexdigest()[:32]
    whole = goal / PurePosixPath(address.rstrip("/")).name
    if not goal.exists():
        with new_folder(goal) as folder:
            single = objects.address != address.rstrip("/")
            copy(objects, names, folder if single else folder / whole.name)
            if not single:
                _prune(folder / whole.name)
    return whole


def fetched_text(address: str) -> str | None:
    """The text of one object; ``None`` if there is none."""
    objects, name = Objects.holding(address)
    found = objects.read(name)
    return None if found is None else found.decode(errors="replace")


def copy(objects: Objects, names: Sequence[str], folder: Path, most: int | None = None) -> None:
    """Writes objects into a folder, under their names; what is in memory meanwhile does not depend on their size.

    Args:
        most: bytes that they may have together.

    Raises:
        VitportError: for a name that leads out of the folder, for an object that is gone, and for too many bytes.
    """
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise VitportError(f"{objects.address} has an object {name!r}, which leads out of its folder: rename it.")
    with ThreadPoolExecutor(_LOOKING) as pool:
        is_large = dict(zip(names, pool.map(lambda name: objects.holds(name, LARGE), names), strict=True))
    small = [name for name in names if not is_large[name]]
    contents = zip(small, ([it] for it in objects.read_all((name, None) for name in small)), strict=True)
    large = ((name, objects.read_parts(name)) for name in names if is_large[name])
    written = 0
    for name, parts in chain(contents, large):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for part in parts:
                if part is None:
                    raise VitportError(f"{objects.address}/{name} was deleted while it was read: run again.")
                written += file.write(part)
                if most is not None and written > most:
                    raise VitportError(
                        f"{objects.address} has more than the {most:,} bytes that are copied to this machine: use tar "
                        "shards, Parquet or ArrayRecord files or image folders, which are read in place, or give a "
                        "larger --data.cache-limit."
                    )


def cache(kind: str) -> Path:
    """Where copies are kept: ``$XDG_CACHE_HOME/vitport``, or ``~/.cache/vitport``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitport" / kind


class new_folder:  # noqa: N801, because it is used like a function
    """A folder that is filled aside, and gets its name when it is whole; another process may have been faster."""

    def __init__(self, goal: Path) -> None:
        self._goal = goal

    def __enter__(self) -> Path:
        try:
            self._goal.parent.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(dir=self._goal.parent, suffix=".part"))
        except OSError as error:
            raise VitportError(
                f"{self._goal.parent} cannot be written ({error.strerror or error}), where copies from buckets are "
                "kept: set XDG_CACHE_HOME to a folder with free space."
            ) from error
        return self._aside

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        if kind is None:
            with suppress(OSError):
                self._aside.rename(self._goal)
        shutil.rmtree(self._aside, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, VitportError):
            raise VitportError(
                f"{self._goal.parent} cannot be written ({error.strerror or error}), where copies from buckets are "
                "kept: set XDG_CACHE_HOME to a folder with free space."
            ) from error


def _found(address: str) -> tuple[Objects, list[str]]:
    """The objects of a folder, or the one object of that name and those beside it."""
    folder = Objects(address)
    if names := [name for name in folder.names() if not name.endswith("/")]:
        return folder, names
    beside, name = Objects.holding(address)
    if beside.versions([name]) == [None]:
        raise VitportError(f"{address} does not exist: give the address of an object, or what the names of some begin "
                           "with.")  # fmt: skip
    return beside, [name]


def _needed(names: Iterable[str]) -> list[str]:
    names = list(names)
    steps = [int(found[1]) for name in names if (found := _STEP.fullmatch(name))]
    if any(name.startswith("checkpoints/") for name in names):
        newest = f"checkpoints/{max(steps)}/" if steps else "checkpoints/-/"
        names = [name for name in names if name.startswith(newest) or name == "config.json"]
    is_checkpoint = any(name.endswith(CHECKSUMS) for name in names)
    return [name for name in names if not (is_checkpoint and _UNREAD in PurePosixPath(name).parts)]


def _prune(folder: Path) -> None:
    """Removes from the checksums what was not fetched; a run without a checkpoint is still one."""
    for path in folder.rglob(CHECKSUMS):
        sums = json.loads(path.read_text())
        kept = {name: value for name, value in sums.items() if PurePosixPath(name).parts[0] != _UNREAD}
        path.write_text(json.dumps(kept, indent=2))
    if (folder / "config.json").is_file() and "recipe" in json.loads((folder / "config.json").read_text()):
        (folder / "checkpoints").mkdir(exist_ok=True)
