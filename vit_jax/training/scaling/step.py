"""What one device computes, holds and moves in a training step, by how the mesh cuts the model."""

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
"""Bytes that AdamW reads (those four) and writes (all but the gradient) per value."""
_TOUCHED = 5
"""Times that an activation crosses the memory's bus: written and read forward; read again backward, where its gradient
is written and read."""
_TOUCHED_AGAIN = 2
"""Where it is computed anew."""


@dataclass(frozen=True)
class Step:
    """A training step with AdamW as ``jit`` compiles it over a mesh."""

    model: ViTConfig
    batch: int
    """Pictures, over all devices."""
    mesh: MeshShape
    """Every axis with a size: none is left open."""
    precision: Precision = "bfloat16"
    remat: Remat = "none"
    """Policies between none and full count as none, but for weights, queries, keys and values, gathered again."""
    accumulation: int = 1
    attention: AttentionKind = "fused"

    @property
    def devices(self) -> int:
        return self.mesh.data * self.mesh.fsdp * self.mesh.tensor

    @property
    def pictures(self) -> float:
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
    """How FSDP and tensor axes cut a model; counts are of values after the tensor axis has taken its part."""

    gathered: int
    """In parameters that FSDP cuts, before it does."""
    gathered_in_blocks: int
    """Those of them in blocks."""
    copied: int
    """In parameters that FSDP leaves whole."""
    held: int
    """On one device."""
    products: int
    """Multiply-adds per token of the layers in blocks that the tensor axis cuts, before it does."""
    attentions: int
    """Blocks whose heads it cuts."""
    column_parts: int
    """Branches of blocks, attention or MLP, that begin with outputs cut."""
    row_parts: int
    """Those that end with inputs cut: what they give is summed over the tensor axis."""
    exchanged: int
    """In kernels of packed layers in blocks, as they lie on one device, which keeps its own share of them alone."""
    packed_biases: int
    """In biases of those layers, where FSDP leaves them whole."""


@lru_cache(maxsize=16)
def parameter_shapes(model: ViTConfig) -> dict[str, tuple[int, ...]]:
    """Path → shape, as :func:`vit_jax.get_params` names them; nothing is computed."""
    abstract = nnx.eval_shape(lambda: VisionTransformer(model, rngs=nnx.Rngs(0)))
    return {path: tuple(leaf.shape) for path, leaf in get_params(abstract).items()}


@lru_cache(maxsize=1024)
def cut_model(model: ViTConfig, fsdp: int, tensor: int) -> Cut:
    """Adds up what :func:`vit_jax.training.devices.sharding.partition` says of each parameter."""
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
    """Operations of products on one device: the backward pass has twice those of the forward pass."""
    c, tensor = step.model, step.mesh.tensor
    N, cut = c.num_tokens, step.cut
    shared = 2 * N * cut.products + 4 * N * N * c.embed_dim * cut.attentions
    forward = forward_flops(c) - shared * (1 - 1 / tensor)
    return (4 if step.remat == "full" else 3) * forward * step.pictures * step.accumulation


def activation_bytes(step: Step) -> float:
    """Of one block for one part of the batch: what the backward pass reads, were nothing computed anew.

    Inputs of norms and of layers, queries, keys and values, attention weights, and the MLP before and after its
    activation function. Attention weights are stored in float32, by explicit attention in the precision of the
    computation too, by cuDNN not at all.
    """
    c, cut = step.model, step.cut
    N, D, M = c.num_tokens, c.embed_dim, c.hidden_dim
    tensor = step.mesh.tensor if cut.attentions else 1
    whole = (2 if c.block == "parallel" else 4) * D
    shared = 4 * D + (2 if c.mlp == "plain" else 3) * M
    weight = {"explicit": 4 if step.word == 4 else 4 + step.word, "fused": 4, "cudnn": 0}[step.attention]
    weights = c.num_heads * N * N * weight
    return step.pictures * (step.word * N * (whole + shared / tensor) + weights / tensor)


def memory_bytes(step: Step) -> float:
    """What one device holds at most: state, weights as the products want them, activations."""
    c, cut = step.model, step.cut
    copies = cut.gathered + cut.copied
    blocks = count_blocks(c)
    activations = blocks * activation_bytes(step)
    if step.remat == "full":
        boundaries = step.pictures * step.word * c.num_tokens * c.embed_dim
        activations = blocks * boundaries + activation_bytes(step)
        # One block's weights are computed with, and the next one's are on their way.
        copies -= cut.gathered_in_blocks * (1 - 2 / max(blocks, 2))
    kept = step.word * copies if step.word == 2 or step.mesh.fsdp > 1 else 0
    return _STATE * cut.held + kept + activations


def traffic_bytes(step: Step) -> float:
    """What crosses the bus of one device's memory: weights, their gradients, AdamW, activations."""
    weights = (4 if step.remat == "full" else 3) * step.word * (step.cut.gathered + step.cut.copied)
    touched = _TOUCHED + (_TOUCHED_AGAIN if step.remat == "full" else 0)
    activations = touched * count_blocks(step.model) * activation_bytes(step)
    return step.accumulation * (weights + activations) + _UPDATE * step.cut.held
