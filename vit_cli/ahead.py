"""What ``vitport train --dry-run --on`` and ``vitport evaluate --on`` print of programs for chips that are not here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vit_cli.terminal import print_table, say, say_error, write_json
from vit_cli.waiting import waited
from vit_spec import VitportError

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_jax.training.ahead.compile import Compiled
    from vit_jax.training.ahead.topology import Topology
    from vit_jax.training.recipe.config import TrainConfig
    from vit_jax.training.recipe.execution import Precision


def compile_step(options: TrainConfig, on: str, classes: int | None, json: bool) -> None:
    """Compiles the step of a run.

    Raises:
        VitportError: if it does not fit, with what was tried to make it fit.
    """
    topology = _described(on)
    from vit_jax.training.ahead.compile import TooLargeError, compile_ahead
    from vit_jax.training.ahead.fitting import advice, attempts

    try:
        with _naming_classes():
            compiled = waited(lambda: compile_ahead(options, topology, classes, say_error))
    except TooLargeError as error:
        found = error
        say_error(f"{error}; compiling what may make it fit, which takes as long each:")
        made = waited(lambda: attempts(options, topology, classes, found, lambda change: say_error(f"trying {change}")))
        raise VitportError(f"{error}: {advice(made)}") from error
    _print(compiled, json)


def search_step(options: TrainConfig, on: str, classes: int | None, json: bool) -> None:
    """Compiles the best ways to run the step, and says which to take.

    Raises:
        VitportError: if none fits.
    """
    topology = _described(on)
    from vit_jax.training.ahead.report import milliseconds, values
    from vit_jax.training.ahead.search import search

    with _naming_classes():
        made = waited(lambda: search(options, topology, classes, lambda change: say_error(f"compiling {change}")))
    if json:
        ways = [
            {"options": way.change, "predicted_seconds": way.predicted.seconds, "used": way.used}
            | ({} if way.compiled is None or way.found is None else values(way.compiled, way.found))
            for way in made
        ]
        write_json({"use": made[0].change, "ways": ways})
        return
    rows = [
        [
            way.change,
            milliseconds(way.predicted.seconds),
            "does not fit" if way.found is None else milliseconds(way.found.seconds),
            "" if way.found is None else f"{way.found.mfu:.0%}",
            f"{way.used / 1e9:.1f} GB",
        ]
        for way in made
    ]
    print_table(["options", "on paper", "compiled", "MFU", "memory of a chip"], rows)
    say(f"use {made[0].change}")
    assert made[0].compiled is not None
    _print(made[0].compiled, json)


def compile_evaluation(checkpoint: Checkpoint, on: str, batch: int, precision: Precision, json: bool) -> None:
    """Compiles the inference of ``vitport evaluate``.

    Raises:
        VitportError: if it does not fit.
    """
    topology = _described(on)
    from vit_jax.training.ahead.compile import TooLargeError, compile_inference_ahead

    try:
        compiled = waited(lambda: compile_inference_ahead(checkpoint, topology, batch, precision, say_error))
    except TooLargeError as error:
        raise VitportError(f"{error}: give a smaller --batch, or more chips.") from error
    _print(compiled, json)


@contextmanager
def _naming_classes() -> Iterator[None]:
    """Adds what stands for data that are not here to the error that says so."""
    from vit_jax.training.data import NoDataError

    try:
        yield
    except NoDataError as error:
        raise VitportError(
            f"{str(error).rstrip('.')}; or, for data that are elsewhere, --classes and the number of their classes."
        ) from error


def _described(on: str) -> Topology:
    from vit_jax.training.ahead.topology import describe, prepare_environment

    prepare_environment()
    return describe(on)


def _print(compiled: Compiled, json: bool) -> None:
    from vit_jax.training.ahead.report import facts, values
    from vit_jax.training.ahead.roofline import roofline

    found = roofline(compiled)
    if json:
        write_json(values(compiled, found))
        return
    for name, value in facts(compiled, found).items():
        say(f"{name}: {value}")
