"""Going on from a work directory's checkpoints, where they are this run's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.training.devices.processes import together
from vit_jax.training.run.checkpoints import Checkpoints, Outline, outline
from vit_jax.training.run.setup import Setup
from vit_spec import VitportError


def begin(setup: Setup, kept: Checkpoints, say: Callable[[str], None]) -> tuple[Any, int]:
    """The state to go on from, as the engine wants it, and the steps that were taken: 0 where there is no checkpoint.

    Raises:
        VitportError: if the checkpoints are those of another run, or none can be read.
    """
    workdir = kept.folder.parent

    def check(record: Mapping[str, Any], saved: Outline) -> None:
        _check_same_model(setup, record, workdir)
        _check_same_state(setup, record, saved, workdir)

    newest = kept.newest(setup.shapes, check)
    saved, record = newest.state, newest.record
    for sentence in newest.unread.values():
        say(f"{sentence}: the one before is taken")
    if saved is None:
        return setup.first_state(), 0
    step = int(np.asarray(saved.step.addressable_shards[0].data))
    together(partial(_check_same_run, setup, record, step, workdir))
    for unread in newest.unread:  # only now that it is this run's folder
        kept.set_aside(unread)
    say(f"going on from the checkpoint of step {step}")
    order = _other(setup.record()["order"], record.get("order", {}))
    if order:
        say(f"{', '.join(order)}: pictures come in another order now, some twice in this epoch and some never")
    return setup.engine.place_state(saved), step


def _other(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What differs, of what both tell."""
    found, expected = (json.loads(json.dumps(values)) for values in (found, expected))  # tuples are lists in a record
    both = (name for name in found if name in expected)
    return [f"{name} {found[name]} instead of {expected[name]}" for name in both if found[name] != expected[name]]


def _check_same_run(setup: Setup, record: Mapping[str, Any], step: int, workdir: Path) -> None:
    if record.get("pictures") != len(setup.train):
        raise VitportError(
            f"{workdir} holds a run over {record.get('pictures')} pictures, and {setup.train.name} has "
            f"{len(setup.train)}: give it the same data, or choose another work directory."
        )
    if _other({"labels": setup.record()["labels"]}, record):
        raise VitportError(
            f"{workdir} holds a run over other classes than {setup.train.name} has, or in another order: give it the "
            "same data, or choose another work directory."
        )
    if step > setup.steps:
        raise VitportError(f"{workdir} holds {step} steps already, and the run has {setup.steps}: train longer.")


def _check_same_model(setup: Setup, record: Mapping[str, Any], workdir: Path) -> None:
    # Rates of dropout change no parameter.
    now = {name: value for name, value in setup.model.to_dict().items() if not name.endswith("rate")}
    other = _other(dict.fromkeys(now) | record.get("config", {}), now)
    if other:
        raise VitportError(
            f"{workdir} holds a run of another model ({', '.join(other)}): choose another work directory."
        )


def _check_same_state(setup: Setup, record: Mapping[str, Any], saved: Outline, workdir: Path) -> None:
    """Most options may change from one start to the next; these not: those that make another state."""
    wanted = outline(setup.shapes)
    if saved == wanted:
        return
    then, now = (_flat(recipe) for recipe in (record.get("recipe", {}), setup.record()["recipe"]))
    other = [*_other(then, now), _apart(saved, wanted)]
    raise VitportError(
        f"{workdir} holds a run whose optimizer has another state ({', '.join(other)}): give it the same options, "
        "or choose another work directory."
    )


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {"ema": recipe["ema"], **recipe["optimizer"]} if recipe else {}


def _apart(saved: Outline, wanted: Outline) -> str:
    """The first array that is not the same."""
    name = min(name for name in saved.keys() | wanted.keys() if saved.get(name) != wanted.get(name))
    found, expected = (f"{of[name][1]} {of[name][0]}" if name in of else "nothing" for of in (saved, wanted))
    return f"{name} is {found} instead of {expected}"
