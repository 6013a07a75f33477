"""What would make a step fit that does not: tried, by compiling it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vit_jax.training.ahead.compile import TooLargeError, compile_ahead
from vit_jax.training.ahead.topology import Topology
from vit_jax.training.devices.sharding import axis_sizes
from vit_jax.training.recipe.config import TrainConfig
from vit_jax.training.recipe.execution import MeshShape, mesh_words
from vit_spec import VitportError


@dataclass(frozen=True)
class Attempt:
    """Another way to run the same step, compiled."""

    change: str
    """As options of the command."""
    used: float
    """Bytes of a chip's memory."""
    fits: bool


def attempts(
    options: TrainConfig,
    topology: Topology,
    classes: int | None,
    found: TooLargeError,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Attempt]:
    """Compiles the step with rematerialisation, with more accumulation, and with more FSDP, each until it fits; if none
    of them fits alone, with all of them.

    Args:
        options: of a run whose step does not fit.
        topology: the chips.
        classes: as :func:`~vit_jax.training.ahead.compile.compile_ahead` takes them.
        found: by how much it does not fit.
        tell: called with each change before it is compiled.
    """
    made: list[Attempt] = []

    def first_that_fits(ways: Iterator[tuple[str, TrainConfig]]) -> None:
        for change, other in ways:
            tell(change)
            own = _attempt(change, other, topology, classes)
            made.extend([] if own is None else [own])
            if own is None or own.fits:
                break

    first_that_fits(_rematerialised(options))
    first_that_fits(_accumulated(options, found))
    first_that_fits(_sharded(options, topology))
    if not any(one.fits for one in made):
        first_that_fits(_together(options, topology))
    return made


def advice(made: list[Attempt]) -> str:
    """The end of the sentence that says that a step does not fit."""
    fitting, others = ([one for one in made if one.fits is fits] for fits in (True, False))

    def listed(some: list[Attempt]) -> str:
        return ", ".join(f"{one.change} ({one.used / 1e9:.1f} GB)" for one in some)

    parts = [f"it compiles with {listed(fitting)}" if fitting else "take more chips, or a smaller batch"]
    parts += [f"it does not fit with {listed(others)} either"] if others else []
    return "; ".join(parts) + "."


def _attempt(change: str, options: TrainConfig, topology: Topology, classes: int | None) -> Attempt | None:
    try:
        return Attempt(change, compile_ahead(options, topology, classes).memory.used, True)
    except TooLargeError as error:
        return Attempt(change, error.used, False)
    except VitportError:  # the change does not go with the batch or the model
        return None


def _rematerialised(options: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    if options.remat != "full":
        yield "--remat full", dataclasses.replace(options, remat="full")


def _accumulated(options: TrainConfig, found: TooLargeError) -> Iterator[tuple[str, TrainConfig]]:
    """As many microbatches as make everything fit in proportion, and twice as many."""
    parts = options.recipe.accumulation
    while found.used / parts * options.recipe.accumulation > found.limit:
        parts *= 2
    for count in (parts, 2 * parts):
        recipe = dataclasses.replace(options.recipe, accumulation=count)
        yield f"--recipe.accumulation {count}", dataclasses.replace(options, recipe=recipe)


def _sharded(options: TrainConfig, topology: Topology) -> Iterator[tuple[str, TrainConfig]]:
    """Four times as many shards, and as many as the data axis has."""
    data, fsdp, tensor = axis_sizes(options.mesh, len(topology.devices))
    for more in dict.fromkeys((4, data)):
        if more > 1 and data % more == 0:
            shape = MeshShape(data // more, fsdp * more, tensor)
            yield f"--mesh {mesh_words(shape)}", dataclasses.replace(options, mesh=shape)


def _together(options: TrainConfig, topology: Topology) -> Iterator[tuple[str, TrainConfig]]:
    changes = ["--remat full"]
    for change, other in list(_sharded(options, topology))[-1:]:
        changes.append(change)
        options = other
    parts = 8 * options.recipe.accumulation
    recipe = dataclasses.replace(options.recipe, accumulation=parts)
    changes.append(f"--recipe.accumulation {parts}")
    yield " ".join(changes), dataclasses.replace(options, remat="full", recipe=recipe)
