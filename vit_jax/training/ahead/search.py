"""The fastest mesh and options for chips that are not here: ranked on paper, and the best few compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from vit_jax.training.ahead.compile import Compiled, TooLargeError, compile_ahead
from vit_jax.training.ahead.duration import words
from vit_jax.training.ahead.roofline import Roofline, roofline
from vit_jax.training.ahead.topology import Topology
from vit_jax.training.recipe.config import TrainConfig
from vit_jax.training.recipe.execution import MeshShape, Remat, mesh_words
from vit_jax.training.run.setup import set_up
from vit_jax.training.scaling.predict import Prediction, predict, rank
from vit_spec import VitportError, count_blocks

FEW = 3
"""Programs that fit, of which the fastest is taken."""
_MOST = 8
"""Scans that are compiled at all."""
_UNROLLED = {"gpu": 48, "tpu": 4}
"""Blocks of which unrolled programs are compiled too: for GPUs it takes two to three times as long as a scan, for TPUs
ten times at twelve blocks."""


@dataclass(frozen=True)
class Way:
    """One way to run the step."""

    change: str
    """As options of the command."""
    predicted: Prediction
    compiled: Compiled | None
    """``None``: it does not fit."""
    found: Roofline | None
    used: float
    """Bytes of a chip's memory."""


def search(
    options: TrainConfig,
    topology: Topology,
    classes: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Way]:
    """Ranks all meshes, with and without rematerialisation, by :func:`vit_jax.training.scaling.predict.rank`, and
    compiles scans in this order until three fit. Then it unrolls the fastest of them, where that compiles in minutes:
    first with as little rematerialisation as should fit, and what does not fit with more.

    Args:
        options: of a run. Its model, data, batch, precision and attention stay; mesh, rematerialisation, accumulation
            and scan are chosen.
        topology: the chips.
        classes: as :func:`~vit_jax.training.ahead.compile.compile_ahead` takes them.
        tell: called with what will be compiled and about how long it takes, then with each way before it is.

    Returns:
        What was compiled: what fits first, the fastest first by its roofline.

    Raises:
        VitportError: for options that cannot be; if nothing fits, on paper or for the compiler.
    """
    recipe = dataclasses.replace(options.recipe, accumulation=1)
    alone = dataclasses.replace(options, mesh=MeshShape(), recipe=recipe)  # which any batch fits
    model = set_up(alone, topology.devices[:1], classes).model
    ranked = rank(model, options.batch, len(topology.devices), topology.chip, options.precision)
    tell(f"the best of {len(ranked)} ways until {FEW} fit, each {words(model, topology, scan=True)}")
    made: list[Way] = []
    for predicted in islice(ranked, _MOST):
        if sum(way.found is not None for way in made) == FEW:
            break
        change, other = _as_options(predicted, options)
        tell(change)
        made.append(_tried(change, predicted, other, topology, classes))
    if all(way.found is None for way in made):
        tried = f"; of {len(ranked)} that should fit, none of the best {len(made)} does" if made else ""
        raise VitportError(
            f"No mesh of {topology.name} fits a batch of {options.batch}{tried}: take more chips, or another batch."
        )
    for predicted in _unrolled(_sorted(made)[0].predicted, topology):
        change, other = _as_options(predicted, options)
        tell(change)
        made.append(_tried(change, predicted, other, topology, classes))
        if made[-1].found is not None:
            break
    return _sorted(made)


def _sorted(made: list[Way]) -> list[Way]:
    return sorted(made, key=lambda way: float("inf") if way.found is None else way.found.seconds)


def _unrolled(scan: Prediction, topology: Topology) -> Iterator[Prediction]:
    """The same mesh without a scan, with more and more rematerialisation."""
    general = "gpu" if topology.chip.cudnn else "tpu"
    if count_blocks(scan.step.model) > _UNROLLED[general]:
        return
    remats: tuple[Remat, ...] = ("none", "dots", "full")
    for remat in remats:
        found = predict(dataclasses.replace(scan.step, scan=False, remat=remat), topology.chip)
        if found.fits:
            yield found


def _as_options(predicted: Prediction, options: TrainConfig) -> tuple[str, TrainConfig]:
    """In words, with what ``--remat auto`` leaves to be said."""
    step = predicted.step
    usual: Remat = "dots" if step.scan else "none"
    remat: Remat = "auto" if step.remat == usual else step.remat
    words = [f"--mesh {mesh_words(step.mesh)}", "--scan" if step.scan else "--no-scan"]
    words += [f"--remat {remat}"] if remat != "auto" else []
    words += [f"--recipe.accumulation {step.accumulation}"] if step.accumulation > 1 else []
    recipe = dataclasses.replace(options.recipe, accumulation=step.accumulation)
    return " ".join(words), dataclasses.replace(options, mesh=step.mesh, remat=remat, scan=step.scan, recipe=recipe)


def _tried(change: str, predicted: Prediction, options: TrainConfig, topology: Topology, classes: int | None) -> Way:
    try:
        compiled = compile_ahead(options, topology, classes)
    except TooLargeError as error:
        return Way(change, predicted, None, None, error.used)
    return Way(change, predicted, compiled, roofline(compiled), compiled.memory.used)
