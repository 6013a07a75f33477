"""Operations, memory and memory traffic of one device in a training step, from how the mesh shards the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from vit_jax.params import get_params, parameters_by_path
from vit_jax.training.devices.sharding import AXES, partition
from vit_jax.training.recipe.config import AttentionKind, Precision
from vit_jax.training.recipe.execution import MeshShape, Remat
from vit_jax.vit.vision_transformer import VisionTransformer
from vit_spec import Kind, ViTConfig, count_blocks, forward_flops

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

    model: ViTConfig
    batch: int
    """Images, over all devices."""
    mesh: MeshShape
    """Every axis has a size, none is -1."""
    precision: Precision = "bfloat16"
    remat: Remat = "none"
    """Policies between none and full count as none, except that weights, queries, keys and values are regathered."""
    accumulation: int = 1
    attention: AttentionKind = "fused"

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
    products: int
    """Multiply-adds per token in the layers of blocks that the tensor axis shards, over all its shards."""
    attentions: int
    """Blocks whose heads it shards."""
    column_parts: int
    """Branches of blocks, attention or MLP, that begin with a layer sharded by outputs."""
    row_parts: int
    """Those that end with a layer sharded by inputs, whose outputs are summed over the tensor axis."""
    exchanged: int
    """In one device's shards of the packed kernels in blocks, which it exchanges for the columns that it needs."""
    packed_biases: int
    """In biases of those layers, if FSDP replicates them."""


@lru_cache(maxsize=16)
def parameter_shapes(model: ViTConfig) -> dict[str, tuple[int, ...]]:
    """Path → shape, as :func:`vit_jax.get_params` names them; nothing is computed."""
    abstract = nnx.eval_shape(lambda: VisionTransformer(model, rngs=nnx.Rngs(0)))
    return {path: tuple(leaf.shape) for path, leaf in get_params(abstract).items()}


@lru_cache(maxsize=1024)
def cut_model(model: ViTConfig, fsdp: int, tensor: int) -> Cut:
    """The sum over all parameters of what :func:`vit_jax.training.devices.sharding.partition` does to each."""
    mesh = AbstractMesh((1, fsdp, tensor), AXES)
    gathered = in_blocks = copied = products = attentions = exchanged = biases = 0
    columns: set[str] = set()
    rows: set[str] = set()
    for path, shape in parameter_shapes(model).items():
        parameter = parameters_by_path(model)[path]
        size, block, split = parameter.size, parameter.segment is not None, parameter.split
        axes = _axes(partition(parameter, shape, mesh))
        own = size // tensor if "tensor" in axes else size
        gathered += own if "fsdp" in axes else 0
        in_blocks += own if "fsdp" in axes and block else 0
        copied += 0 if "fsdp" in axes else own
        if not block or tensor == 1:
            continue
        biases += size if split == "packed" and parameter.kind is Kind.BIAS and not axes else 0
        if "tensor" in axes and parameter.is_kernel:
            products += size
            (rows if split == "rows" else columns).add(path.rsplit("/", 2)[0])
            attentions += split == "packed"
            # If both axes shard the inputs, devices exchange their shards before FSDP gathers them.
            exchanged += (own // fsdp if axes[:2] == ["fsdp", "tensor"] else own) if split == "packed" else 0
    held = gathered // fsdp + copied
    return Cut(gathered, in_blocks, copied, held, products, attentions, len(columns), len(rows), exchanged, biases)


def _axes(spec: PartitionSpec) -> list[str]:
    return [name for axis in spec if axis for name in ((axis,) if isinstance(axis, str) else axis)]


def flops(step: Step) -> float:
    """Operations of matrix products on one device. The backward pass has twice those of the forward pass."""
    c, tensor = step.model, step.mesh.tensor
    N, cut = c.num_tokens, step.cut
    shared = 2 * N * cut.products + 4 * N * N * c.embed_dim * cut.attentions
    forward = forward_flops(c) - shared * (1 - 1 / tensor)
    return (4 if step.remat == "full" else 3) * forward * step.images * step.accumulation


def activation_bytes(step: Step) -> float:
    """Bytes of one block and one microbatch that the backward pass reads, without rematerialisation.

    Inputs of norms and of linear layers, queries, keys and values, attention weights, and the MLP before and after its
    activation function. Attention weights are held in float32; explicit attention also holds them in the compute dtype,
    and cuDNN does not hold them.
    """
    c, cut = step.model, step.cut
    N, D, M = c.num_tokens, c.embed_dim, c.hidden_dim
    tensor = step.mesh.tensor if cut.attentions else 1
    whole = (2 if c.block == "parallel" else 4) * D
    shared = 4 * D + (2 if c.mlp == "plain" else 3) * M
    weight = {"explicit": 4 if step.word == 4 else 4 + step.word, "fused": 4, "cudnn": 0}[step.attention]
    weights = c.num_heads * N * N * weight
    return step.images * (step.word * N * (whole + shared / tensor) + weights / tensor)


def memory_bytes(step: Step) -> float:
    """Peak bytes on one device: state, weights in the compute dtype, activations."""
    c, cut = step.model, step.cut
    copies = cut.gathered + cut.copied
    blocks = count_blocks(c)
    activations = blocks * activation_bytes(step)
    if step.remat == "full":
        boundaries = step.images * step.word * c.num_tokens * c.embed_dim
        activations = blocks * boundaries + activation_bytes(step)
        # One block's weights are in use while the next block's are gathered.
        copies -= cut.gathered_in_blocks * (1 - 2 / max(blocks, 2))
    kept = step.word * copies if step.word == 2 or step.mesh.fsdp > 1 else 0
    return _STATE * cut.held + kept + activations


def traffic_bytes(step: Step) -> float:
    """Bytes that cross one device's memory bus: weights, their gradients, AdamW, activations."""
    weights = (4 if step.remat == "full" else 3) * step.word * (step.cut.gathered + step.cut.copied)
    touched = _TOUCHED + (_TOUCHED_AGAIN if step.remat == "full" else 0)
    activations = touched * count_blocks(step.model) * activation_bytes(step)
    return step.accumulation * (weights + activations) + _UPDATE * step.cut.held
