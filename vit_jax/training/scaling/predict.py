"""Predicted time of a training step, and the fastest mesh that fits into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jax.sharding import AbstractMesh

from vit_jax.training.devices.chips import Chip
from vit_jax.training.devices.sharding import AXES, check_divides
from vit_jax.training.recipe.config import Precision
from vit_jax.training.recipe.execution import MeshShape, Remat
from vit_jax.training.run.attention import choose_attention
from vit_jax.training.scaling.collectives import collectives, seconds
from vit_jax.training.scaling.step import Step, flops, memory_bytes, traffic_bytes
from vit_jax.training.step.cost import step_flops
from vit_spec import Config, VitportError, block_sizes

_NEAR = 1.02
"""Times within this ratio count as equal: the assumptions are not more accurate."""


@dataclass(frozen=True)
class Assumptions:
    """Fractions of the data sheets' figures that a program reaches."""

    products: float = 0.7
    bandwidth: float = 0.8
    """Of memory and of links."""
    memory: float = 0.9
    """Of HBM that a program may use."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one step on one kind of chip; times in seconds."""

    step: Step
    chip: Chip
    products: float
    """Matrix products."""
    traffic: float
    """Reading and writing memory."""
    beside: float
    """Collectives that overlap with the computation of other layers: those of weights, and on GPUs of gradients."""
    waited_for: float
    """Collectives that nothing runs beside: those of activations, for which the next matrix product waits, and on TPUs
    sums of gradients."""
    memory: float
    """Bytes on one device."""
    fits: bool

    @property
    def seconds(self) -> float:
        """Kernels run in sequence; :attr:`beside` overlaps with them, :attr:`waited_for` does not."""
        return max(self.products + self.traffic, self.beside) + self.waited_for

    @property
    def bounds(self) -> tuple[float, float]:
        """With full overlap, and with none."""
        together = max(self.products, self.traffic, self.beside + self.waited_for)
        return together, self.products + self.traffic + self.beside + self.waited_for

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: operations of the model over those that the chips could do in that time."""
        return step_flops(self.step.model, self.step.batch) / (self.seconds * self.step.devices * self.chip.flops)

    @property
    def limit(self) -> str:
        """The largest share of the time."""
        exchanges = self.waited_for + (self.beside if self.beside > self.products + self.traffic else 0.0)
        parts = {"products": self.products, "memory traffic": self.traffic, "collectives": exchanges}
        return max(parts, key=lambda name: parts[name])


def predict(step: Step, chip: Chip, assumed: Assumptions = Assumptions()) -> Prediction:
    """Time and memory of a step on such chips."""
    exchanged = {True: 0.0, False: 0.0}
    for one in collectives(step):
        waits = one.waits or (one.is_sum and not chip.sums_beside)
        exchanged[waits] += seconds(one, step.mesh, chip) / assumed.bandwidth
    memory = memory_bytes(step, chip.tile)
    return Prediction(
        step,
        chip,
        products=flops(step) / (chip.flops * assumed.products),
        traffic=traffic_bytes(step, chip.tile) / (chip.memory_bandwidth * assumed.bandwidth),
        beside=exchanged[False],
        waited_for=exchanged[True],
        memory=memory,
        fits=memory <= assumed.memory * chip.memory,
    )


def rank(
    model: Config,
    batch: int,
    devices: int,
    chip: Chip,
    precision: Precision = "bfloat16",
    assumed: Assumptions = Assumptions(),
) -> list[Prediction]:
    """Steps that fit into memory, the fastest first.

    Searches meshes of so many devices, all with ``scan``, with rematerialisation of blocks and with what
    ``remat=auto`` does then, each with the least accumulation that fits. Those within 2 % of the fastest come by
    simplicity: the smallest tensor axis, then the smallest FSDP axis, then the least rematerialisation. Attention is
    what ``attention=auto`` is on such chips. On TPUs an FSDP axis leaves whole tiles of a width: compiled over 256
    chips, with half of one, ViT-L's kernels are summed whole instead of gathered and scattered.

    Raises:
        VitportError: if there are no devices.
    """
    if devices < 1:
        raise VitportError(f"devices={devices} is none: give 1 or more.")
    candidates = _candidates(model, batch, devices, precision, chip)
    found = sorted((one for step in candidates if (one := _least(step, chip, assumed))), key=lambda one: one.seconds)
    near = [one for one in found if one.seconds <= _NEAR * found[0].seconds]
    near.sort(key=lambda one: (one.step.mesh.tensor, one.step.mesh.fsdp, one.step.remat == "full"))
    return near + found[len(near) :]


def _candidates(model: Config, batch: int, devices: int, precision: Precision, chip: Chip) -> Iterator[Step]:
    attention = choose_attention("auto", model, "gpu" if chip.cudnn else "tpu", precision)
    width = max(sizes.width for sizes in block_sizes(model))
    for tensor in _divisors(devices):
        for fsdp in _divisors(devices // tensor):
            if fsdp > 1 and chip.tile[0] > 1 and width % (fsdp * chip.tile[0]):
                continue
            mesh = MeshShape(devices // (fsdp * tensor), fsdp, tensor)
            remats: tuple[Remat, ...] = ("dots", "full")  # the first is what remat=auto is
            for remat in remats:
                yield Step(model, batch, mesh, precision, remat, attention=attention, scan=True)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _least(step: Step, chip: Chip, assumed: Assumptions) -> Prediction | None:
    mesh = AbstractMesh((step.mesh.data, step.mesh.fsdp, step.mesh.tensor), AXES)
    accumulation = 1
    while True:
        try:
            check_divides(step.model, step.batch, accumulation, mesh)
        except VitportError:
            return None
        found = predict(replace(step, accumulation=accumulation), chip, assumed)
        if found.fits:
            return found
        accumulation *= 2
