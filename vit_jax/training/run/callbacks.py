"""What a run calls while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vit_jax.training.run.monitor import Line


def _ignore(*event: Any) -> None:
    del event


@dataclass(frozen=True)
class Callbacks:
    """What to call during a run; by default, nothing."""

    message: Callable[[str], None] = _ignore
    """Gets a sentence."""
    line: Callable[[Line, int], None] = _ignore
    """Gets a line of the log, and the number of steps of the whole run."""
    evaluation: Callable[[int, Mapping[str, float]], None] = _ignore
    """Gets the step, and the metrics of :class:`~vit_jax.training.evaluation.scores.Scores`."""
