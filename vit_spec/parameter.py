"""What is known of one parameter apart from its values. No other module derives it from a name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Kind(Enum):
    """What a parameter is; the comments give its axes in PyTorch's layout."""

    LINEAR = "linear"  # (out, in)
    CONV = "conv"  # (out, in, height, width)
    NORM = "norm"  # (channels,), the factor
    BIAS = "bias"  # (channels,)
    TOKEN = "token"  # (1, tokens, channels), learned tokens and queries
    TABLE = "table"  # (1, positions, channels), learned position embeddings
    SCALE = "scale"  # (channels,), layer scale; (heads, 1, 1), scale of the logits
    OFFSETS = "offsets"  # (offsets, heads), learned biases of the logits by relative position
    SHARE = "share"  # (half of the head width,), of what the share of a second softmax is computed from
    FREQUENCIES = "frequencies"  # (2, heads, half of the head width), angles of a turn by column and by row


class Stage(Enum):
    """The part of the model that uses a parameter, in the order of the forward pass."""

    EMBED = "embed"
    """Before the first block."""
    BLOCK = "block"
    MERGE = "merge"
    """Between two segments of blocks."""
    POOL = "pool"
    """After the last block, up to the features."""
    CLASSIFIER = "classifier"
    """From the features to the logits; ``num_classes=0`` leaves these parameters out."""


Split = Literal["columns", "rows", "packed"]
"""How tensor parallelism divides a linear layer (Shoeybi et al. 2019, section 3): by outputs, by inputs, or, where the
outputs of several layers lie side by side, by the outputs of each of them."""


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks with the same parameters, ``{prefix}.0`` to ``{prefix}.{count - 1}``.

    They can be stacked, and compiled once for all.
    """

    prefix: str
    count: int
    period: int = 1
    """Blocks ``i`` and ``i + period`` compute the same function, so ``period`` of them are compiled."""

    def block(self, index: int) -> str:
        """The name of one block, such as ``blocks.3``."""
        return f"{self.prefix}.{index}"


@dataclass(frozen=True, kw_only=True)
class BlockSizes:
    """What a block of a segment works on, for one image: memory, traffic and communication follow from it."""

    tokens: int
    width: int
    """Channels of a token."""
    heads: int
    """Of its attention."""
    keys: int
    """Tokens that a token attends to: all of them, or those of a window."""
    hidden: int
    """Hidden units of the MLP."""
    saved: int
    """Values for each token that the backward pass reads and a tensor axis does not shard: inputs of norms and of
    layers that it shards by outputs."""
    saved_by_part: int
    """Those that it does shard: queries, keys, values, hidden units, and inputs of layers that it shards by inputs."""
    plain_attention: bool = True
    """Whether attention is the softmax of scaled products alone: nothing is added to its logits, and no second softmax
    is subtracted."""

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One tensor of a model."""

    name: str
    """As in the PyTorch model's ``state_dict``."""
    shape: tuple[int, ...]
    """In PyTorch's layout."""
    kind: Kind
    stage: Stage
    layer: int
    """Position for layer-wise decay: 0 before the first block, 1 for the first block, one more than the number of
    blocks after the last."""
    segment: Segment | None = None
    """``None`` outside blocks."""
    index: int | None = None
    """The block's position in its segment."""
    split: Split | None = None
    """``None``: every device holds all of it."""
    exempt: bool = False
    """Whether a kernel is exempt from weight decay."""

    @property
    def path(self) -> str:
        """As in the Flax model's state, such as ``blocks/0/attn/qkv/kernel``."""
        return flax_path(self.name, len(self.shape))

    @property
    def block(self) -> str | None:
        """The name of the block that it belongs to, such as ``blocks.3``."""
        return None if self.segment is None or self.index is None else self.segment.block(self.index)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_kernel(self) -> bool:
        """Whether it is the matrix or convolution kernel of a layer."""
        return self.kind in (Kind.LINEAR, Kind.CONV)

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: to kernels, not to biases, norms, tokens, tables and scales."""
        return self.is_kernel and not self.exempt


def flax_path(name: str, axes: int) -> str:
    """The path in Flax of a PyTorch name: ``/`` for ``.``, and ``weight`` becomes ``kernel``, or ``scale`` in a norm.

    Args:
        axes: number of the parameter's axes. A norm's weight has one.
    """
    *modules, leaf = name.split(".")
    if leaf == "weight":
        leaf = "scale" if axes == 1 else "kernel"
    return "/".join([*modules, leaf])
