"""Going on from a work directory's checkpoints, where they are this run's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.training.checkpoints import Checkpoints
from vit_jax.training.config import config_from_dict
from vit_jax.training.optimizer import make_optimizer
from vit_jax.training.setup import Setup
from vit_spec import VitportError


def begin(setup: Setup, kept: Checkpoints, say: Callable[[str], None]) -> tuple[Any, int]:
    """The state to go on from, as the engine wants it, and the steps that were taken: 0 where there is no checkpoint.

    Raises:
        VitportError: if the checkpoints are those of another run, or none can be read.
    """
    steps, workdir = kept.steps(), kept.folder.parent
    for step in reversed(steps):
        try:
            record = kept.record(step)
        except Exception:  # damaged, which is told of when it is restored
            continue
        _check_same_model(setup, record, workdir)
        _check_same_state(setup, record, workdir)
        break
    saved, record, said = kept.newest(setup.shapes)
    for sentence in said:
        say(sentence)
    if saved is None:
        return setup.first_state(), 0
    step = int(np.asarray(saved.step.addressable_shards[0].data))
    if record.get("pictures") != len(setup.train):
        raise VitportError(
            f"{workdir} holds a run over {record.get('pictures')} pictures, and {setup.train.name} has "
            f"{len(setup.train)}: give it the same data, or choose another work directory."
        )
    if step > setup.steps:
        raise VitportError(f"{workdir} holds {step} steps already, and the run has {setup.steps}: train longer.")
    for unread in steps[len(steps) - len(said) :]:  # only now that it is this run's folder
        kept.remove(unread)
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


def _check_same_model(setup: Setup, record: Mapping[str, Any], workdir: Path) -> None:
    # Rates of dropout change no parameter.
    now = {name: value for name, value in setup.model.to_dict().items() if not name.endswith("rate")}
    other = _other(dict.fromkeys(now) | record.get("config", {}), now)
    if other:
        raise VitportError(
            f"{workdir} holds a run of another model ({', '.join(other)}): choose another work directory."
        )


def _check_same_state(setup: Setup, record: Mapping[str, Any], workdir: Path) -> None:
    """Most options may change from one start to the next; these not: those that make another state."""
    then, now = record.get("recipe"), setup.record()["recipe"]
    if then is None:
        return
    options = config_from_dict({"recipe": {"optimizer": then["optimizer"]}}, str(workdir)).recipe.optimizer
    optimizer = make_optimizer(options, setup.schedule, setup.shapes.params)
    state = jax.eval_shape(optimizer.init, setup.shapes.params)
    same = _outline(state) == _outline(setup.shapes.opt_state) and bool(then["ema"]) == bool(now["ema"])
    if not same:
        other = _other({"ema": then["ema"], **then["optimizer"]}, {"ema": now["ema"], **now["optimizer"]})
        raise VitportError(
            f"{workdir} holds a run whose optimizer has another state ({', '.join(other)}): give it the same options, "
            "or choose another work directory."
        )


def _outline(state: Any) -> Any:
    return jax.tree.structure(state), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
