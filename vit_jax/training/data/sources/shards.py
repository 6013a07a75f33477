"""Assigns the files of a sharded data set to its splits."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from vit_jax.training.data.record import Split
from vit_spec import VitportError

_WORDS = {"train": (("train", "training"),), "validation": (("val", "valid", "validation", "dev"), ("test",))}
"""The first group that occurs holds the validation images."""
_NUMBERED = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})")
_Path = TypeVar("_Path", bound=PurePath)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def split_files(root: _Path, files: list[_Path], split: Split) -> list[_Path]:
    """Files whose path below ``root`` has a word for the split; if none has one for training, all files without one for
    validation."""
    words = {path: set(re.split(r"[^a-z]+", path.relative_to(root).as_posix().lower())) for path in files}
    for group in _WORDS[split]:
        found = [path for path in files if words[path] & set(group)]
        if found:
            return found
    held_out = {path for path in files if any(words[path] & set(group) for group in _WORDS["validation"])}
    return [] if split == "validation" else [path for path in files if path not in held_out]


def check_complete(
    files: Sequence[PurePath], exists: Callable[[PurePath], bool] = lambda it: Path(it).exists()
) -> None:
    """Refuses numbered files, ``…-00000-of-00004``, if one is missing.

    Args:
        exists: whether there is a file.

    Raises:
        VitportError: with the name of the first missing file.
    """
    for path in files:
        match = _NUMBERED.search(path.name)
        if match is None:
            continue
        for number in range(int(match["count"])):
            other = f"{path.name[: match.start()]}-{number:05}-of-{match['count']}{path.name[match.end() :]}"
            if not exists(path.with_name(other)):
                raise VitportError(f"{path.with_name(other)} is missing beside {path.name}: download it too.")


def expanded(pattern: str) -> list[Path]:
    """The files of a path with ``*``, ``?``, ``[…]`` or a range such as ``{000..127}``, sorted."""
    return sorted(Path(found) for part in _ranges(pattern) for found in glob.glob(part))  # noqa: PTH207


def _ranges(pattern: str) -> Iterator[str]:
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        yield from _ranges(f"{pattern[: match.start()]}{number:0{len(first)}}{pattern[match.end() :]}")
