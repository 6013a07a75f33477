"""Operations, memory and memory traffic of one device in a training step, from how the mesh shards the model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from vit_jax.families import make_model
from vit_jax.params import get_params, parameters_by_path
from vit_jax.training.devices.sharding import AXES, partition
from vit_jax.training.recipe.config import Precision
from vit_jax.training.recipe.execution import AttentionKernel, MeshShape, Remat
from vit_spec import BlockSizes, Config, Kind, Segment, block_sizes, count_blocks, forward_flops, segments

_STATE = 16
"""Bytes of float32 per value: parameter, gradient and the two moments of AdamW."""
_UPDATE = 28
"""Bytes per value that AdamW reads (all four) and writes (all but the gradient)."""
_TOUCHED = 5
"""Times that an activation crosses the memory bus: written and read in the forward pass, read again in the backward
pass, where its gradient is written and read."""
_TOUCHED_AGAIN = 2
"""Further times if it is recomputed."""


@dataclass(frozen=True)
class Step:
    """A training step with AdamW as ``jit`` compiles it over a mesh."""

    model: Config
    batch: int
    """Images, over all devices."""
    mesh: MeshShape
    """Every axis has a size, none is -1."""
    precision: Precision = "bfloat16"
    remat: Remat = "none"
    """Policies between none and full count as none, except that weights, queries, keys and values are regathered."""
    accumulation: int = 1
    attention: AttentionKernel = "fused"

    @property
    def devices(self) -> int:
        return self.mesh.data * self.mesh.fsdp * self.mesh.tensor

    @property
    def images(self) -> float:
        """On one device at a time: of one part of the batch."""
        return self.batch / (self.mesh.data * self.mesh.fsdp * self.accumulation)

    @property
    def word(self) -> int:
        """Bytes of one value of the computation."""
        return 2 if self.precision == "bfloat16" else 4

    @property
    def cut(self) -> Cut:
        return cut_model(self.model, self.mesh.fsdp, self.mesh.tensor)


@dataclass(frozen=True)
class SegmentCut:
    """How the tensor axis shards the blocks of one segment."""

    products: int = 0
    """Multiply-adds per token in the layers that it shards, over all its shards."""
    attentions: int = 0
    """Blocks whose heads it shards."""
    column_parts: int = 0
    """Branches of blocks, attention or MLP, that begin with a layer sharded by outputs."""
    row_parts: int = 0
    """Those that end with a layer sharded by inputs, whose outputs are summed over the tensor axis."""


@dataclass(frozen=True)
class Cut:
    """How FSDP and tensor axes shard a model. Counts are of values in one tensor shard."""

    gathered: int
    """In parameters that FSDP shards, gathered."""
    gathered_in_blocks: int
    """Of those, in blocks."""
    copied: int
    """In parameters that FSDP replicates."""
    held: int
    """On one device."""
    segments: tuple[SegmentCut, ...]
    exchanged: int
    """In one device's shards of the packed kernels in blocks, which it exchanges for the columns that it needs."""
    packed_biases: int
    """In biases of those layers, if FSDP replicates them."""


@lru_cache(maxsize=16)
def parameter_shapes(model: Config) -> dict[str, tuple[int, ...]]:
    """Path → shape, as :func:`vit_jax.get_params` names them; nothing is computed."""
    abstract = nnx.eval_shape(lambda: make_model(model, rngs=nnx.Rngs(0)))
    return {path: tuple(leaf.shape) for path, leaf in get_params(abstract).items()}


@lru_cache(maxsize=1024)
def cut_model(model: Config, fsdp: int, tensor: int) -> Cut:
    """The sum over all parameters of what :func:`vit_jax.training.devices.sharding.partition` does to each."""
    mesh = AbstractMesh((1, fsdp, tensor), AXES)
    gathered = in_blocks = copied = exchanged = biases = 0
    products, attentions = Counter[Segment](), Counter[Segment]()
    columns: dict[Segment, set[str]] = defaultdict(set)
    rows: dict[Segment, set[str]] = defaultdict(set)
    for path, shape in parameter_shapes(model).items():
        parameter = parameters_by_path(model)[path]
        size, segment, split = parameter.size, parameter.segment, parameter.split
        axes = _axes(partition(parameter, shape, mesh))
        own = size // tensor if "tensor" in axes else size
        gathered += own if "fsdp" in axes else 0
        in_blocks += own if "fsdp" in axes and segment is not None else 0
        copied += 0 if "fsdp" in axes else own
        if segment is None or tensor == 1:
            continue
        biases += size if split == "packed" and parameter.kind is Kind.BIAS and not axes else 0
        if "tensor" in axes and parameter.is_kernel:
            products[segment] += size
            (rows if split == "rows" else columns)[segment].add(path.rsplit("/", 2)[0])
            attentions[segment] += split == "packed"
            # If both axes shard the inputs, devices exchange their shards before FSDP gathers them.
            exchanged += (own // fsdp if axes[:2] == ["fsdp", "tensor"] else own) if split == "packed" else 0
    held = gathered // fsdp + copied
    parts = tuple(SegmentCut(products[it], attentions[it], len(columns[it]), len(rows[it])) for it in segments(model))
    return Cut(gathered, in_blocks, copied, held, parts, exchanged, biases)


def _axes(spec: PartitionSpec) -> list[str]:
    return [name for axis in spec if axis for name in ((axis,) if isinstance(axis, str) else axis)]


def flops(step: Step) -> float:
    """Operations of matrix products on one device. The backward pass has twice those of the forward pass."""
    c, tensor = step.model, step.mesh.tensor
    shared = sum(
        2 * sizes.tokens * cut.products + 4 * sizes.tokens * sizes.keys * sizes.width * cut.attentions
        for sizes, cut in zip(block_sizes(c), step.cut.segments, strict=True)
    )
    forward = forward_flops(c) - shared * (1 - 1 / tensor)
    return (4 if step.remat == "full" else 3) * forward * step.images * step.accumulation


def activation_bytes(step: Step) -> tuple[float, ...]:
    """Bytes of one block of each segment and one microbatch that the backward pass reads, without rematerialisation.

    Inputs of norms and of linear layers, queries, keys and values, attention weights, and the MLP before and after its
    activation function. Attention weights are held in float32; explicit attention also holds them in the compute dtype,
    and cuDNN does not hold them.
    """
    sizes = block_sizes(step.model)
    return tuple(_of_block(step, own, cut) for own, cut in zip(sizes, step.cut.segments, strict=True))


def _of_block(step: Step, sizes: BlockSizes, cut: SegmentCut) -> float:
    tensor = step.mesh.tensor if cut.attentions else 1
    weight = {"explicit": 4 if step.word == 4 else 4 + step.word, "fused": 4, "cudnn": 0, "flash": 0}[step.attention]
    weights = sizes.heads * sizes.tokens * sizes.keys * weight
    tokens = step.word * sizes.tokens
    return step.images * (tokens * (sizes.saved + sizes.saved_by_part / tensor) + weights / tensor)


def memory_bytes(step: Step) -> float:
    """Peak bytes on one device: state, weights in the compute dtype, activations."""
    c, cut = step.model, step.cut
    copies = cut.gathered + cut.copied
    blocks = count_blocks(c)
    activations = _over_blocks(c, activation_bytes(step))
    if step.remat == "full":
        boundaries = [step.images * step.word * sizes.tokens * sizes.width for sizes in block_sizes(c)]
        activations = _over_blocks(c, boundaries) + max(activation_bytes(step))
        # One block's weights are in use while the next block's are gathered.
        copies -= cut.gathered_in_blocks * (1 - 2 / max(blocks, 2))
    kept = step.word * copies if step.word == 2 or step.mesh.fsdp > 1 else 0
    return _STATE * cut.held + kept + activations


def traffic_bytes(step: Step) -> float:
    """Bytes that cross one device's memory bus: weights, their gradients, AdamW, activations."""
    weights = (4 if step.remat == "full" else 3) * step.word * (step.cut.gathered + step.cut.copied)
    touched = _TOUCHED + (_TOUCHED_AGAIN if step.remat == "full" else 0)
    activations = touched * _over_blocks(step.model, activation_bytes(step))
    return step.accumulation * (weights + activations) + _UPDATE * step.cut.held


def _over_blocks(config: Config, of_block: Sequence[float]) -> float:
    """The sum over all blocks of what one block of each segment has."""
    return sum(segment.count * each for segment, each in zip(segments(config), of_block, strict=True))
