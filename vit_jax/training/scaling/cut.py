"""How a mesh shards a model: what each device holds, gathers and exchanges, counted in values."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache

from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from vit_jax.families import make_model
from vit_jax.params import get_params, parameters_by_path
from vit_jax.training.devices.sharding import AXES, partition
from vit_spec import Config, Kind, Segment, segments


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
    products: Counter[Segment] = Counter()
    attentions: dict[Segment, set[str | None]] = defaultdict(set)
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
            attentions[segment] |= {parameter.block} if split == "packed" else set()
            # If both axes shard the inputs, devices exchange their shards before FSDP gathers them.
            exchanged += (own // fsdp if axes[:2] == ["fsdp", "tensor"] else own) if split == "packed" else 0
    held = gathered // fsdp + copied
    parts = tuple(
        SegmentCut(products[it], len(attentions[it]), len(columns[it]), len(rows[it])) for it in segments(model)
    )
    return Cut(gathered, in_blocks, copied, held, parts, exchanged, biases)


def _axes(spec: PartitionSpec) -> list[str]:
    return [name for axis in spec if axis for name in ((axis,) if isinstance(axis, str) else axis)]
