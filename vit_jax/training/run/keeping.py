"""Which checkpoints a run keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from vit_jax.training.evaluation.scores import main_metric
from vit_jax.training.recipe.config import CheckpointOptions
from vit_jax.training.run.writing import writing

METRICS, RECORD = "metrics", "record"
"""Folders of a checkpoint: its evaluation, and what its weights mean."""
PARTS = ("params", "ema", "rest", RECORD)
"""Folders without which a checkpoint is damaged."""
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")


def saved_steps(folder: Path) -> list[int]:
    """The checkpoints of a folder, in order: folders whose names are numbers, as a run writes them."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _STEP.fullmatch(path.name) and path.is_dir())


def kept(folder: Path, keep: CheckpointOptions) -> set[int]:
    """The newest checkpoints, the best, and whatever no run wrote."""
    found = saved_steps(folder)
    own = (folder / str(step) for step in found)
    steps = [int(path.name) for path in own if (path / RECORD).is_dir() and not path.is_symlink()]
    scores = {step: score for step in steps if (score := _accuracy(folder / str(step))) is not None}
    best = sorted(scores, key=lambda step: (scores[step], step))[-keep.best :] if keep.best else []
    return {*steps[-keep.last :], *best, *set(found).difference(steps)}


def write_metrics(checkpoint: Path, metrics: Mapping[str, float]) -> None:
    """An evaluation of a checkpoint, as orbax would have written it.

    Raises:
        UnwrittenError: if it cannot be written.
    """
    path = checkpoint / METRICS / METRICS
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(dict(metrics)))
        aside.replace(path)


def _accuracy(checkpoint: Path) -> float | None:
    try:
        return float(main_metric(json.loads((checkpoint / METRICS / METRICS).read_text()))[1])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
