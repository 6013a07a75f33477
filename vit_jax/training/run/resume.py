"""Resuming from the checkpoints of a work directory, if they are this run's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np

from vit_jax.training.devices.processes import raise_on_all
from vit_jax.training.recipe.config import CheckpointOptions
from vit_jax.training.run.checkpoints import CheckpointReader
from vit_jax.training.run.setup import Setup
from vit_jax.training.run.state_tree import Outline, outline
from vit_spec import VitportError

_PROGRESS = "progress"
"""Where the record of a checkpoint has it."""


@dataclass
class Progress:
    """Where a run is, besides its state: what a checkpoint holds so that the log goes on as if nothing had happened."""

    step: int = 0
    """Steps taken."""
    unlogged: list[Mapping[str, float]] = field(default_factory=list)
    """Metrics of the steps since the last line of the log."""
    unwritten: Sequence[Mapping[str, Any]] = ()
    """Lines that could not be written to the log."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Training images that could not be read, with the reasons."""
    evaluates: bool = False
    """Whether the evaluation after this step was interrupted."""
    best: float | None = None
    """The best accuracy, or mean average precision, of an evaluation so far."""
    best_step: int = 0
    """The newest with it."""
    worse: int = 0
    """Evaluations since the first with it."""

    def evaluated(self, step: int, accuracy: float) -> None:
        """Counts an evaluation."""
        if self.best is None or accuracy > self.best:
            self.best, self.best_step, self.worse = accuracy, step, 0
            return
        self.worse += 1
        if accuracy == self.best:
            self.best_step = step  # of equal checkpoints the newest is kept

    @classmethod
    def of(cls, step: int, record: Mapping[str, Any]) -> Progress:
        """What :meth:`record` stored."""
        found = record.get(_PROGRESS, {})
        return cls(step, **{one.name: found[one.name] for one in fields(cls) if one.name in found})

    def early(self, keep: CheckpointOptions) -> str:
        """Why the run ends before its last step, in a sentence, if it does."""
        if keep.patience is None or self.worse < keep.patience:
            return ""
        where = f"; checkpoints/{self.best_step} has it" if keep.best else ""
        return f"none of the last {self.worse} evaluations found more than {self.best:.2%}{where}"

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {_PROGRESS: {name: value for name, value in asdict(self).items() if name != "step"}}


def resume(setup: Setup, checkpoints: CheckpointReader, on_message: Callable[[str], None]) -> tuple[Any, Progress]:
    """The state to continue from, as the engine places it, and how far the run is.

    Raises:
        VitportError: if the checkpoints are those of another run, or none can be read.
    """
    workdir = checkpoints.name

    def check(record: Mapping[str, Any], saved: Outline) -> None:
        _check_same_model(setup, record, workdir)
        _check_same_state(setup, record, saved, workdir)

    newest = checkpoints.newest(setup.shapes, check)
    saved, record = newest.state, newest.record
    for sentence in newest.unread.values():
        on_message(f"{sentence}: the previous one is used")
    if saved is None:
        return setup.first_state(), Progress()
    step = int(np.asarray(saved.step.addressable_shards[0].data))
    raise_on_all(partial(_check_same_run, setup, record, step, workdir))
    for unread in newest.unread:  # only now that the folder is known to be this run's
        checkpoints.set_aside(unread)
    on_message(f"resuming from the checkpoint of step {step}")
    order = _differences(setup.record()["order"], record.get("order", {}))
    if order:
        on_message(f"{', '.join(order)}: the order of images changes, so this epoch may repeat some and miss others")
    return setup.engine.place_state(saved), Progress.of(step, record)


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """The values that differ, of the names that both have."""
    found, expected = (json.loads(json.dumps(values)) for values in (found, expected))  # tuples are lists in a record
    both = (name for name in found if name in expected)
    return [f"{name} {found[name]} instead of {expected[name]}" for name in both if found[name] != expected[name]]


def _anew(workdir: str) -> str:
    return f"start a new run from its weights: --weights {workdir} --workdir ANOTHER"


def _check_same_run(setup: Setup, record: Mapping[str, Any], step: int, workdir: str) -> None:
    if record.get("pictures") != len(setup.train):
        raise VitportError(
            f"{workdir} holds a run on {record.get('pictures')} images, and {setup.train.name} has {len(setup.train)}: "
            f"give the same data, or {_anew(workdir)}."
        )
    if _differences({"labels": setup.record()["labels"]}, record):
        raise VitportError(
            f"{workdir} holds a run on other classes than {setup.train.name} has, or on another order of them: give "
            f"the same data, or {_anew(workdir)}."
        )
    if step > setup.steps:
        raise VitportError(
            f"{workdir} holds a checkpoint of step {step}, beyond the run's {setup.steps}: give more steps or epochs."
        )


def _check_same_model(setup: Setup, record: Mapping[str, Any], workdir: str) -> None:
    # Dropout rates change no parameter.
    now = {name: value for name, value in setup.model.to_dict().items() if not name.endswith("rate")}
    other = _differences(dict.fromkeys(now) | record.get("config", {}), now)
    if other:
        raise VitportError(
            f"{workdir} holds a run of another model ({', '.join(other)}): give the same model and data, or "
            f"{_anew(workdir)}."
        )


def _check_same_state(setup: Setup, record: Mapping[str, Any], saved: Outline, workdir: str) -> None:
    """Options may change from one start to the next unless they alter the optimizer state."""
    wanted = outline(setup.shapes)
    if saved == wanted:
        return
    then, now = (_flat(recipe) for recipe in (record.get("recipe", {}), setup.record()["recipe"]))
    other = [*_differences(then, now), _first_difference(saved, wanted)]
    raise VitportError(
        f"{workdir} holds a run with another optimizer state ({', '.join(other)}): give the same options, "
        "or choose another work directory."
    )


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {"ema": recipe["ema"], **recipe["optimizer"]} if recipe else {}


def _first_difference(saved: Outline, wanted: Outline) -> str:
    """The first array whose shape or dtype differs."""
    name = min(name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name))
    found, expected = (f"{of[name][1]} {of[name][0]}" if name in of else "nothing" for of in (saved, wanted))
    return f"{name} is {found} instead of {expected}"
