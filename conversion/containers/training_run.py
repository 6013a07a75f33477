"""The work directory of ``vitport train``, or one of its checkpoints."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from conversion.containers import orbax_folder
from conversion.containers.checksums import check_checksums
from conversion.containers.file_checks import read_json
from conversion.containers.wall import walled
from conversion.source import Source
from vit_spec import VitportError

_CHECKPOINTS = "checkpoints"
_RECORD = Path("record") / "metadata"
_SETS = ("ema", "params")
"""Trees of weights in a checkpoint; the first that exists is the one that is evaluated."""


def recognises(path: Path) -> bool:
    """A work directory, even without a checkpoint, or one of its checkpoints."""
    return (path / _CHECKPOINTS).is_dir() or (path / _RECORD).is_file()


@walled("training checkpoint")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open the newest checkpoint of a run.

    Args:
        weights_key: ``params``, or ``ema`` for the moving average; ``None`` takes the average if there is one.

    Raises:
        VitportError: if there is no checkpoint, or it does not have that set of weights.
    """
    folder = path if (path / _RECORD).is_file() else _newest(path)
    sets = [name for name in _SETS if (folder / name).is_dir()]
    if not sets or (weights_key is not None and weights_key not in sets):
        raise VitportError(f"{folder} holds {' and '.join(sets) or 'no weights'}: choose --weights-key of these.")
    check_checksums(folder)
    chosen = weights_key or sets[0]
    tree = orbax_folder.read(folder / chosen)
    own = read_json(folder / _RECORD)
    files = (*tree.files, folder / _RECORD)
    others = "".join(f"; {name} is there too" for name in sets if name != chosen)
    note = f"the weights {chosen} of the checkpoint of step {folder.name}{others}"
    return dataclasses.replace(
        tree, path=path, container="training checkpoint", files=files, own=own, notes=(*tree.notes, note)
    )


def _newest(path: Path) -> Path:
    # Orbax names a checkpoint by its number once it is complete.
    steps = [
        folder
        for folder in (path / _CHECKPOINTS).iterdir()
        if re.fullmatch("[0-9]{1,18}", folder.name) and folder.is_dir()
    ]
    if not steps:
        raise VitportError(f"{path} is a work directory without a checkpoint: train until one is saved.")
    return max(steps, key=lambda folder: int(folder.name))
