"""Folders of checkpoints by step, as orbax's CheckpointManager, Flax and transformers' Trainer write them, and the
folder of one such step, in which orbax keeps an item for each thing that was saved.

https://orbax.readthedocs.io/en/latest/guides/checkpoint/checkpoint_format.html
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from conversion.containers import orbax_folder
from conversion.containers.torch_entries import OPTIMIZER
from conversion.containers.wall import walled
from conversion.source import Source
from vit_spec import VitportError

_STEP = re.compile(r"(?:[A-Za-z]\w*?[_-])?(\d+)")
"""``100``, ``checkpoint_100``, ``ckpt-00000100``; a step that is still being written has a longer name."""


def recognises(path: Path) -> bool:
    """A folder with a step or with an item of orbax in it. Links are not followed: they may lead back into it."""
    return bool(_steps(path) or _items(path))


@walled("folder of checkpoints")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open the last step, or the one that is named, and in it the item that is named, or the only one.

    Args:
        weights_key: a step, an item, what lies in the item, or several of these joined by dots: ``100.state.params``.

    Raises:
        VitportError: if nothing has that name, or there are several items and none is named.
    """
    if items := _items(path):
        return _item(path, items, weights_key)
    steps = _steps(path)
    first, rest = _parted(weights_key)
    named = [step for step in steps if first is not None and first in (step.name, _number(step))]
    if first is not None and first.isdigit() and not named:
        raise VitportError(f"{path} has no step {first}: choose one of {', '.join(map(_number, steps))}.")
    step = named[0] if named else steps[-1]
    others = f"; the others are {', '.join(_number(it) for it in steps if it != step)}" if len(steps) > 1 else ""
    which = "" if named else ", the last one"
    return _within(path, step, rest if named else weights_key, f"read step {_number(step)}{which}{others}")


def _item(path: Path, items: list[Path], weights_key: str | None) -> Source:
    first, rest = _parted(weights_key)
    if named := [item for item in items if item.name == first]:
        return _within(path, named[0], rest, f"read the item {first!r}, as asked")
    usual = [item for item in items if not OPTIMIZER.fullmatch(item.name)] or items
    if len(usual) > 1:
        names = ", ".join(item.name for item in usual)
        raise VitportError(f"{path} holds {names}: choose one of them by weights_key (--weights-key).")
    return _within(path, usual[0], weights_key, f"read the item {usual[0].name!r}, the only one of weights")


def _within(path: Path, part: Path, weights_key: str | None, note: str) -> Source:
    from conversion.containers import open_source

    source = open_source(part, weights_key)
    return dataclasses.replace(source, path=path, notes=(note, *source.notes))


def _parted(weights_key: str | None) -> tuple[str | None, str | None]:
    first, *rest = re.split("[./]", weights_key, maxsplit=1) if weights_key else [None]
    return first, rest[0] if rest else None


def _steps(path: Path) -> list[Path]:
    """What is a checkpoint by its name and its content, in the order of the steps."""
    from conversion.containers import is_readable

    named = (child for child in path.iterdir() if _STEP.fullmatch(child.name) and not child.is_symlink())
    found = [child for child in named if is_readable(child)]
    return sorted(found, key=lambda child: (int(_number(child)), child.name))


def _items(path: Path) -> list[Path]:
    folders = (child for child in path.iterdir() if child.is_dir() and not child.is_symlink())
    found = (child for child in folders if not _STEP.fullmatch(child.name))
    return sorted(child for child in found if orbax_folder.recognises(child))


def _number(step: Path) -> str:
    match = _STEP.fullmatch(step.name)
    return str(int(match[1])) if match else step.name
