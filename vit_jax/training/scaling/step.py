"""Operations, memory and memory traffic of one device in a training step, from how the mesh shards the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vit_jax.layers.xla.short_attention import fits
from vit_jax.training.recipe.config import Precision
from vit_jax.training.recipe.execution import AttentionKernel, MeshShape, Remat
from vit_jax.training.scaling.cut import Cut, SegmentCut, cut_model
from vit_spec import BlockSizes, Config, block_sizes, count_blocks, forward_flops, segments

_HELD = 12
"""Bytes of float32 per value: parameter and the two moments of AdamW."""
_WORKING = {"full": 1.05, "dots": 1.65, "dots_no_batch": 1.65}
"""What one block's forward or backward pass holds at a time beside what is kept, by what a block would keep without
rematerialisation: its arrays, their gradients, and copies in another layout. Measured in compiled programs."""
_WORKING_CUDNN = {"full": 1.05, "dots": 1.1, "dots_no_batch": 1.1}
"""The same where cuDNN computes attention, which is recomputed."""
_WORKING_SHORT = 1.75
"""The same with the kernel for short sequences, of which the memory on the chip holds a part."""
_WORKING_OTHERS = 1.4
_FLASH = 5
"""Arrays that JAX's flash kernel keeps padded: queries, keys, values, heads, and what its compiler makes of their
sums. Measured in compiled programs."""
_PUT_OFF = 0.5
"""Share of the blocks, unrolled on GPUs without rematerialisation, whose kernels' gradients are computed only after all
blocks: the gradients of what their layers give are held until then. Measured in compiled programs."""
_BLOCKS_UNDER_WAY = 5
"""Blocks whose weights or gradients TPUs' compiler holds besides the two in work. Measured in programs of ViT-22B."""
_ON_CHIP = 128 * 2**20
"""Bytes of the memory on a chip, of v5e and v6e."""
_UPDATE = 28
"""Bytes per value that AdamW reads (all four) and writes (all but the gradient)."""
_TOUCHED = 5
"""Times that an activation crosses the memory bus: written and read in the forward pass, read again in the backward
pass, where its gradient is written and read."""
_TOUCHED_ONCE_MORE = 4
"""The same where a block is recomputed: less is written in the forward pass. Measured in compiled programs."""


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
    """``auto`` counts as none. Policies between none and full compute as none does."""
    accumulation: int = 1
    attention: AttentionKernel = "fused"
    gradient_sum: Precision = "bfloat16"
    """Of a bfloat16 computation."""
    scan: bool = False
    """Blocks as one ``scan``, in which the backward pass gathers weights again whatever ``remat`` is."""

    @property
    def devices(self) -> int:
        return self.mesh.data * self.mesh.fsdp * self.mesh.tensor

    @property
    def images(self) -> float:
        """On one device at a time: of one part of the batch."""
        return self.batch / (self.mesh.data * self.mesh.fsdp * self.accumulation)

    @property
    def recomputes_norms(self) -> bool:
        """Whether the compiler keeps a norm's input and result alone: it does for GPUs, but a scan keeps what
        differentiation names."""
        return self.attention == "cudnn" and not self.scan and self.remat in ("auto", "none")

    @property
    def gathers_again(self) -> bool:
        """Whether the backward pass gathers the weights of blocks again, instead of keeping them."""
        return self.scan or self.remat not in ("auto", "none")

    @property
    def word(self) -> int:
        """Bytes of one value of the computation."""
        return 2 if self.precision == "bfloat16" else 4

    @property
    def summed_word(self) -> int:
        """Bytes of one value of a gradient while devices sum it."""
        return 2 if self.word == 2 and self.gradient_sum == "bfloat16" else 4

    def is_short(self, sizes: BlockSizes) -> bool:
        """Whether a block's attention is the kernel for short sequences."""
        own = sizes.width // self.mesh.tensor
        return self.attention == "flash" and sizes.plain_attention and fits(sizes.keys, own, self.precision)

    @property
    def cut(self) -> Cut:
        return cut_model(self.model, self.mesh.fsdp, self.mesh.tensor)


def flops(step: Step) -> float:
    """Operations of matrix products on one device. The backward pass has twice those of the forward pass."""
    c, tensor = step.model, step.mesh.tensor
    shared = sum(
        2 * sizes.tokens * cut.products + 4 * sizes.tokens * sizes.keys * sizes.width * cut.attentions
        for sizes, cut in zip(block_sizes(c), step.cut.segments, strict=True)
    )
    forward = forward_flops(c) - shared * (1 - 1 / tensor)
    return (4 if step.remat == "full" else 3) * forward * step.images * step.accumulation


def activation_bytes(step: Step, tile: tuple[int, int] = (1, 1)) -> tuple[float, ...]:
    """Bytes of one block of each segment and one microbatch that are kept for the backward pass, as ``step.remat``
    says.

    In a ``scan`` without rematerialisation these are inputs of linear layers, queries, keys, values and attention
    weights, and in float32 three arrays for each norm (the centred input, twice that, and the normalised one) and the
    heads before their division. Attention weights are kept in float32 and, as factors of a product, in the compute
    dtype. ``dots`` keeps results of matrix products alone, ``full`` the block's input. Unrolled on GPUs, input and
    result stand for each norm's arrays, and heads are kept both as cuDNN pads them and cut.

    Args:
        step: the step.
        tile: rows and columns of the tiles in which the chip holds arrays.
    """
    sizes = block_sizes(step.model)
    return tuple(_of_block(step, own, cut, tile) for own, cut in zip(sizes, step.cut.segments, strict=True))


def _of_block(step: Step, sizes: BlockSizes, cut: SegmentCut, tile: tuple[int, int]) -> float:
    tensor = step.mesh.tensor if cut.attentions else 1
    word, width = step.word, sizes.width
    whole, parts = sizes.saved, sizes.saved_by_part
    if step.remat == "full":
        return step.images * word * sizes.tokens * width
    rows = sizes.tokens // sizes.keys * _up(sizes.keys, tile[0])  # of all windows
    weights = 0 if step.attention in ("cudnn", "flash") else sizes.heads * rows * _up(sizes.keys, tile[1])
    short = step.is_short(sizes)
    # JAX's kernel takes and gives arrays (B, h, N, d) in whole tiles.
    blocks = _up(sizes.keys, tile[1]) * sizes.heads * _up(width // sizes.heads, tile[1])
    kernel = _FLASH * blocks - 3 * sizes.tokens * width if step.attention == "flash" and not short else 0
    if step.remat in ("dots", "dots_no_batch"):
        kept = 2 * width + (parts - sizes.hidden)
        if step.remat == "dots_no_batch" or step.attention in ("cudnn", "flash"):  # heads are recomputed
            kept, weights = kept - width, 0
        return step.images * word * (sizes.tokens * kept + weights) / (tensor if cut.attentions else 1)
    norms = whole // 2
    of_norm = 2 * word if step.recomputes_norms else 3 * 4 + word
    cut_heads = word * width * sizes.tokens if step.recomputes_norms else 0
    padded = 0 if short else 3 * width * (sizes.tokens // sizes.keys * _up(sizes.keys, tile[1]) - sizes.tokens)
    heads = 4 * width if step.attention == "fused" and word < 4 else 0
    by_part = word * (sizes.tokens * parts + padded + kernel) + sizes.tokens * heads + cut_heads
    by_part += weights * (4 if word == 4 else 4 + word)
    return step.images * (sizes.tokens * norms * of_norm + by_part / tensor)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def memory_bytes(step: Step, tile: tuple[int, int] = (1, 1)) -> float:
    """Peak bytes on one device: parameters and moments, gathered weights in the compute dtype and their gradients, the
    batch, and what :func:`_in_blocks` says."""
    cut = step.cut
    copies = cut.gathered + cut.copied
    if step.mesh.fsdp > 1 and step.gathers_again:
        # A block's weights are in use while the next block's are gathered; gradients are summed block by block.
        copies -= cut.gathered_in_blocks * (1 - 2 / max(count_blocks(step.model), 2))
    if step.mesh.fsdp > 1 and step.scan and step.word < 4:
        copies += cut.gathered_in_blocks / step.mesh.fsdp  # all blocks' shards are cast before the scan gathers any
    gradients = 4 * cut.held + (4 * cut.held if step.accumulation > 1 else 0)
    weights = step.word * copies + (_under_way(step) if tile[0] > 1 else 0.0)
    return _HELD * cut.held + gradients + weights + _image_bytes(step) + _in_blocks(step, tile)


def _under_way(step: Step) -> float:
    """Weights that a scan on TPUs gathers ahead, and gradients that it has not scattered yet, as far as the memory on
    the chip does not hold them: some gigabytes of ViT-22B, nothing of ViT-L."""
    if step.mesh.fsdp == 1 or not step.scan:
        return 0.0
    of_block = step.word * step.cut.gathered_in_blocks / count_blocks(step.model)
    return max(0.0, _BLOCKS_UNDER_WAY * of_block - _ON_CHIP)


def _image_bytes(step: Step) -> float:
    """The batch in uint8, and normalised for the gradient of the patches: whole in float32, and once more by
    microbatches, where there are several."""
    pixels = math.prod(step.model.image_size) * step.model.in_channels * step.images * step.accumulation
    return pixels * (1 + (2 * 4 if step.accumulation > 1 else step.word))


def _in_blocks(step: Step, tile: tuple[int, int]) -> float:
    """What the backward pass reads of blocks, and what one block works on. While it is in one segment, those behind it
    are done."""
    kept = activation_bytes(step, tile)
    working = activation_bytes(replace(step, remat="none"), tile)
    factors = _WORKING_CUDNN if step.attention == "cudnn" else _WORKING
    factor = factors.get(step.remat, _WORKING_OTHERS)
    before, most = 0.0, 0.0
    for segment, sizes, held, own in zip(segments(step.model), block_sizes(step.model), kept, working, strict=True):
        before += segment.count * held
        again = step.remat in _WORKING and step.is_short(sizes)
        most = max(most, before + (max(_WORKING_SHORT * own - _ON_CHIP, 0.0) if again else factor * own))
    return most + _put_off(step)


def _put_off(step: Step) -> float:
    """Gradients of queries, keys, values and of both branches' results, held until their kernels' are computed."""
    if not step.recomputes_norms:
        return 0.0
    by_block = [5 * step.images * step.word * sizes.tokens * sizes.width for sizes in block_sizes(step.model)]
    return _PUT_OFF * _over_blocks(step.model, by_block)


def traffic_bytes(step: Step, tile: tuple[int, int] = (1, 1)) -> float:
    """Bytes that cross one device's memory bus: weights, their gradients, AdamW, activations."""
    weights = (4 if step.remat == "full" else 3) * step.word * (step.cut.gathered + step.cut.copied)
    touched = _TOUCHED_ONCE_MORE if step.remat == "full" else _TOUCHED
    activations = touched * _over_blocks(step.model, activation_bytes(replace(step, remat="none"), tile))
    return step.accumulation * (weights + activations) + _UPDATE * step.cut.held


def _over_blocks(config: Config, of_block: Sequence[float]) -> float:
    """The sum over all blocks of what one block of each segment has."""
    return sum(segment.count * each for segment, each in zip(segments(config), of_block, strict=True))
