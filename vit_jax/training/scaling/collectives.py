"""The collectives of a training step: kind, bytes and axes of the mesh."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vit_jax.training.devices.chips import Chip
from vit_jax.training.devices.sharding import AXES
from vit_jax.training.recipe.execution import MeshShape
from vit_jax.training.scaling.step import Step
from vit_spec import block_sizes, segments

Kind = Literal["all-gather", "reduce-scatter", "all-reduce", "all-to-all"]


@dataclass(frozen=True)
class Collective:
    """One kind of collective among the devices along some axes of the mesh."""

    purpose: str
    kind: Kind
    axes: tuple[str, ...]
    size: float
    """Bytes of the result of an all-gather, of the input of a reduction, of one device's shard in an all-to-all."""
    count: int
    """Times per step."""
    waits: bool
    """Whether the next matrix product waits for its result, so that no computation overlaps with it."""

    @property
    def total(self) -> float:
        """Bytes per step."""
        return self.size * self.count

    @property
    def is_sum(self) -> bool:
        return self.kind in ("all-reduce", "reduce-scatter")


def collectives(step: Step) -> tuple[Collective, ...]:
    """All collectives of more than a few kilobytes. Axes of one device have none.

    Tensor axis: Shoeybi et al. 2019, section 3, and an all-to-all of packed kernels
    (:mod:`vit_jax.layers.xla.packed`) and of their gradients. FSDP: ZeRO stage 3 (Rajbhandari et al. 2020), except that
    weights stay gathered from the forward to the backward pass with neither ``scan`` nor rematerialisation.
    """
    cut, mesh = step.cut, step.mesh
    again, sums = int(step.gathers_again), step.summed_word
    exchanges = (2 + again) * step.accumulation
    # Gradients of packed biases are summed before the all-gather.
    summed = cut.copied - cut.packed_biases * (mesh.tensor - 1) // mesh.tensor
    found = [
        Collective("weights", "all-gather", ("fsdp",), step.word * cut.gathered, step.accumulation, False),
        Collective(
            "weights again", "all-gather", ("fsdp",), step.word * cut.gathered_in_blocks,
            again * step.accumulation, False,
        ),
        Collective("gradients", "reduce-scatter", ("fsdp",), sums * cut.gathered, step.accumulation, False),
        Collective(
            "gradients", "all-reduce", ("data",), sums * cut.gathered // mesh.fsdp, step.accumulation, False
        ),
        Collective("gradients", "all-reduce", ("data", "fsdp"), sums * summed, step.accumulation, False),
        *_sums(step),
        Collective("packed layers", "all-to-all", ("tensor",), step.word * cut.exchanged, exchanges, False),
        Collective(
            "packed layers", "all-gather", ("tensor",), step.word * cut.packed_biases, step.accumulation, False
        ),
    ]  # fmt: skip
    return tuple(one for one in found if one.total and _members(one.axes, mesh) > 1)


def _sums(step: Step) -> Iterator[Collective]:
    """Those of the outputs of layers that the tensor axis shards by inputs, and of the gradients before columns."""
    alone = len(segments(step.model)) == 1
    for segment, sizes, cut in zip(segments(step.model), block_sizes(step.model), step.cut.segments, strict=True):
        tokens = step.images * sizes.tokens * sizes.width * step.word
        count = cut.row_parts + cut.column_parts
        if step.remat == "full" and cut.row_parts:
            # The last sum of a block is the next block's input, which is saved.
            count += cut.row_parts - segment.count
        purpose = "sums of layers" if alone else f"sums of layers in {segment.prefix}"
        yield Collective(purpose, "all-reduce", ("tensor",), tokens, count * step.accumulation, True)


def _members(axes: tuple[str, ...], mesh: MeshShape) -> int:
    return math.prod(getattr(mesh, axis) for axis in axes)


def seconds(one: Collective, mesh: MeshShape, chip: Chip) -> float:
    """Time per step of one kind of collective at the links' full bandwidth, without latency.

    ``tensor`` is the innermost axis of the mesh and ``data`` the outermost. Collectives first run within a domain, on a
    torus along all axes that their members span, then between domains on what remains for each member; they move
    ``size * (n - 1) / n`` bytes over every chip's links. An all-reduce is a reduce-scatter and an all-gather. In an
    all-to-all each member sends every other member a part of its shard, at most half a ring away, which takes a quarter
    of an all-gather's time (Austin et al. 2025, part 3).
    """
    members = _members(one.axes, mesh)
    inner = AXES[AXES.index(one.axes[-1]) + 1 :]
    inside = math.gcd(members, max(1, chip.domain // _members(inner, mesh)))
    outside = members // inside
    links = chip.ring_bandwidth * _rings(inside, min(chip.domain, _members(AXES, mesh)), chip)
    within = one.size * (inside - 1) / inside / links
    between = one.size / inside * (outside - 1) / outside / chip.network_bandwidth
    return ring_rounds(one.kind, members) * one.count * (within + between)


def _rings(members: int, chips: int, chip: Chip) -> float:
    """How many closed rings carry a collective among some chips of a slice, which lie along as few axes as can be.

    The slice of a torus is taken to be as square as can be, and an axis that is not closed counts as half a ring, as in
    :meth:`vit_jax.training.ahead.topology.Topology.gather_seconds`.
    """
    if not chip.closes:
        return 1.0
    rings = 0.0
    for axis in range(chip.rings, 0, -1):
        length = min(chip.ring, 2 ** math.ceil(math.log2(chips) / axis))
        chips = max(1, chips // length)
        along = math.gcd(members, length)
        members //= along
        if along > 1:
            rings += 1.0 if along == length and length % chip.closes == 0 else 0.5
    return max(rings, 0.5)


def ring_rounds(kind: str, members: int) -> float:
    """How often a collective of a size takes the time of an all-gather of that size: see :func:`seconds`."""
    return {"all-reduce": 2.0, "all-to-all": members / 4}.get(kind, 1.0)
