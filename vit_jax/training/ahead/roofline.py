"""The time that a compiled program takes at least, and by the assumptions of vit_jax.training.scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vit_jax.training.ahead.compile import Compiled
from vit_jax.training.ahead.exchange import Exchange, exchanges
from vit_jax.training.ahead.operations import flops, traffic
from vit_jax.training.ahead.program import Program
from vit_jax.training.devices.chips import Chip
from vit_jax.training.scaling.collectives import ring_rounds
from vit_jax.training.scaling.predict import Assumptions

_ASSUMED = Assumptions()
_ROUNDS = {"collective-permute": 4.0}
"""All of an array goes one way along one ring, where two gather its halves both ways."""


@dataclass(frozen=True)
class Work:
    """What one device does in a run of a program."""

    flops: float
    """Of matrix products and convolutions."""
    bytes: float
    """Read from and written to main memory."""
    kernels: float
    """Seconds of all instructions, each by whichever of its operations and bytes takes longer."""


@dataclass(frozen=True)
class Link:
    """Collectives of one kind along the same axes of the mesh, in a run of the program."""

    kind: str
    axes: tuple[str, ...]
    asynchronous: bool
    count: int
    bytes: float
    seconds: float
    """At the links' full bandwidth."""


@dataclass(frozen=True)
class Roofline:
    """Of a compiled program, on one chip; times in seconds."""

    work: Work
    links: tuple[Link, ...]
    compute: float
    """All operations at the chip's peak."""
    memory: float
    """All bytes at the full bandwidth of its memory."""
    seconds: float
    """Of a run of the program: kernels one after the other, asynchronous collectives beside them, the others alone,
    each at the share of its data sheet that is assumed."""
    mfu: float
    """Model FLOPs utilisation that follows."""

    @property
    def exchanged(self) -> float:
        """All collectives at the links' full bandwidth."""
        return sum(link.seconds for link in self.links)

    @property
    def limit(self) -> str:
        """Which of the three is the longest."""
        parts = {"compute": self.compute, "memory": self.memory, "links": self.exchanged}
        return max(parts, key=lambda name: parts[name])


def roofline(compiled: Compiled, assumed: Assumptions = _ASSUMED) -> Roofline:
    """What follows from a compiled program for its time."""
    chip, mesh = compiled.topology.chip, compiled.mesh
    work = work_of(compiled.program, chip, assumed)
    links = links_of(compiled)
    beside, alone = (
        sum(link.seconds for link in links if link.asynchronous is asynchronous) / assumed.bandwidth
        for asynchronous in (True, False)
    )
    seconds = max(work.kernels, beside) + alone
    return Roofline(
        work, links, work.flops / chip.flops, work.bytes / chip.memory_bandwidth, seconds,
        compiled.model_flops / (seconds * mesh.size * chip.flops),
    )  # fmt: skip


def work_of(program: Program, chip: Chip, assumed: Assumptions) -> Work:
    """Operations, bytes and time of a program's instructions but its collectives, loops as often as they run."""
    operations = moved = kernels = 0.0
    for here, one, times in program.executed():
        own, crossed = flops(program, here, one), traffic(program, here, one)
        operations += times * own
        moved += times * crossed
        kernels += times * max(
            own / (chip.flops * assumed.products), crossed / (chip.memory_bandwidth * assumed.bandwidth)
        )
    return Work(operations, moved, kernels)


def links_of(compiled: Compiled) -> tuple[Link, ...]:
    """The collectives of a program, by kind and axes, the longest first."""
    mesh, topology = compiled.mesh, compiled.topology
    devices = list(mesh.devices.flat)
    found: dict[tuple[str, tuple[str, ...], bool], tuple[int, float, float]] = {}
    for one in exchanges(compiled.program, mesh.size):
        key = (one.kind, _axes(one, mesh.devices.shape, mesh.axis_names), one.asynchronous)
        count, size, seconds = found.get(key, (0, 0.0, 0.0))
        gather = topology.gather_seconds([devices[member] for member in one.members])
        own = _ROUNDS.get(one.kind, ring_rounds(one.kind, len(one.members))) * one.total * gather
        found[key] = (count + one.times, size + one.total, seconds + own)
    links = (Link(*key, *values) for key, values in found.items())
    return tuple(sorted(links, key=lambda link: -link.seconds))


def _axes(one: Exchange, shape: tuple[int, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """The axes of the mesh along which the members of a group differ."""
    places = np.unravel_index(np.array(one.members), shape)
    return tuple(name for name, at in zip(names, places, strict=True) if len(np.unique(at)) > 1)
