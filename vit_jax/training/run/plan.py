"""What a run will cost, without running a step: ``vitport train --dry-run``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from vit_jax.training.devices.sharding import shardings
from vit_jax.training.recipe.execution import MeshShape
from vit_jax.training.run.setup import Setup
from vit_jax.training.scaling import Step, collectives
from vit_jax.training.step.cost import step_flops
from vit_jax.training.step.optimizer import frozen_paths, trained
from vit_spec import count_parameters


@dataclass(frozen=True)
class Plan:
    """The cost of a run; made by :func:`plan`."""

    facts: Mapping[str, str]
    parameters: list[tuple[str, tuple[int, ...], str]]
    """Path, shape, and the mesh axes that shard each axis."""


def plan(setup: Setup) -> Plan:
    """Parameters, operations, memory of one device and shardings; the step is compiled but not run."""
    state, o = setup.shapes, setup.options
    copies = o.parallel == "pmap"
    trains = trained(frozen_paths(o.recipe.optimizer.frozen, setup.model), state.params)
    parts = {
        "parameters": state.params,
        "optimizer": state.opt_state,
        "moving average": state.ema,
        "gradients": trains,
    }
    held = {name: sum(_bytes_per_device(leaf) for leaf in jax.tree.leaves(tree)) for name, tree in parts.items()}
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {jax.process_count()} processes"
    facts = {
        "parameters": f"{count_parameters(setup.model):,}",
        "trained parameters": f"{sum(math.prod(leaf.shape) for leaf in trains.values()):,}",
        "operations per step": f"{step_flops(setup.model, o.batch, o.recipe.optimizer.frozen):.3e} (matrix products, "
        "forward and backward)",
        "run": f"{setup.steps} steps of {o.batch} images, {setup.steps * o.batch / len(setup.train):.1f} epochs",
        "devices": devices,
        "program": program_words(setup.program),
        "mesh": "copies (pmap)" if copies else ", ".join(f"{axis} {size}" for axis, size in setup.mesh.shape.items()),
        **{f"memory per device, {name}": _megabytes(size) for name, size in held.items() if size},
    }
    temporary = _temporary(setup)
    if temporary is not None:
        facts["memory per device, activations and other temporaries"] = f"{_megabytes(temporary)} (as compiled)"
    if not copies:
        mesh = MeshShape(**setup.mesh.shape)
        facts |= communication(
            Step(setup.model, o.batch, mesh, o.precision, setup.remat, o.recipe.accumulation, setup.attention,
                 o.gradient_sum, setup.scan)
        )  # fmt: skip
    placed = None if copies else shardings(state.params, setup.model, setup.mesh)
    rows = [
        (path, tuple(leaf.shape), "whole" if placed is None else _shards(placed[path].spec, len(leaf.shape)))
        for path, leaf in state.params.items()
    ]
    return Plan(facts, rows)


def program_words(program: Mapping[str, Any]) -> str:
    """What :attr:`~vit_jax.training.run.setup.Setup.program` says, in words."""
    return ", ".join(_words(program))


def _words(program: Mapping[str, Any]) -> Iterator[str]:
    yield f"{program['batch']:,} images"
    for name, value in program.items():
        if name == "precision":
            yield str(value)
        elif name == "scan":
            yield "scan" if value else "unrolled"
        elif name == "gradient_sum":
            yield f"gradients summed in {value}"
        elif name != "batch":
            yield f"{name} {value}"


def communication(step: Step) -> dict[str, str]:
    """What devices send each other in a step; docs/reports/scaling.md derives it."""
    return {
        f"sent per step, {one.purpose}, {one.kind} along {' and '.join(one.axes)}": _megabytes(one.total)
        for one in collectives(step)
    }


def _bytes_per_device(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _temporary(setup: Setup) -> int | None:
    found = setup.lower().compile().memory_analysis()
    return getattr(found, "temp_size_in_bytes", None)


def _shards(spec: Any, axes: int) -> str:
    along = (axis if isinstance(axis, tuple) else (axis or "-",) for axis in (*spec, *[None] * (axes - len(spec))))
    named = ["+".join(axis) for axis in along]
    return " ".join(named) if any(name != "-" for name in named) else "whole"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
