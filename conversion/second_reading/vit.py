"""The second description of a format of plain Vision Transformers; see :mod:`conversion.second_reading`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from conversion.second_reading import NONE, Candidates, Reading
from vit_spec.vit.rotary import Rotary


@dataclass(frozen=True, kw_only=True)
class PartNames:
    """What a format calls the parts of a Vision Transformer; a part that it does not have has no name.

    Names of layers and norms leave out their last component (``.weight``, ``/kernel``). Names in the second group are
    relative to their block.
    """

    patches: Candidates
    pixel_norm: Candidates = NONE
    """Before the projection of patches, over their pixels by row, column and channel."""
    patch_norm: Candidates = NONE
    tokens: tuple[Candidates, ...] = ()
    """Class token, distillation token, registers: in the order of the sequence."""
    positions: Candidates = NONE
    norm_pre: Candidates = NONE
    block: Candidates
    """``{i}`` stands for the block's number. Without it, arrays hold all blocks, stacked on their first axis; with
    ``{chunk}`` before it, blocks lie in chunks and ``{i}`` counts through all of them."""

    norm1: Candidates = NONE
    qkv: Candidates = NONE
    """Queries, keys and values in one layer."""
    query: Candidates = NONE
    key: Candidates = NONE
    value: Candidates = NONE
    out: Candidates = NONE
    scale1: Candidates = NONE
    norm2: Candidates = NONE
    first: Candidates = NONE
    """Twice as wide as the input of ``second`` where it holds a gate too; the gate comes first."""
    gate: Candidates = NONE
    gated: Candidates = NONE
    second: Candidates = NONE
    scale2: Candidates = NONE
    inside: Mapping[str, Candidates] = field(default_factory=dict)
    """What few formats have inside attention and MLP, by the words of ``vit_parity.semantics.vit``: norms of ``query``,
    ``key``, ``heads`` and ``hidden``; arrays ``query bias``, ``value bias``, ``bias mask``, a factor of the bias of
    the joint layer, ``offsets``, biases by relative position, and ``frequencies`` of learned rotary positions; layers
    ``offsets' first layer`` and ``offsets' second layer``, which compute such biases; of differential attention, norm
    ``difference`` and arrays ``factor q1`` to ``factor k2``; ``joint out``, ``out`` and ``second`` in one layer that
    reads heads first."""
    branches: tuple[str, ...] = ()
    """Where a block has several attentions and MLPs: what these are called, ``{j}`` standing for the branch. Names in
    this group are then relative to the branch."""
    branch: Mapping[str, Candidates] = field(default_factory=dict)
    """The ``norm`` and the ``scale`` of a branch."""
    fused: Candidates = NONE
    """Of a parallel block: hidden vector, queries, keys and values in one layer."""
    frequencies: Candidates = NONE
    """Of learned rotary positions, where one array outside blocks holds those of all, blocks on axis 1."""
    shared: Mapping[str, Candidates] = field(default_factory=dict)
    """Biases by relative position, or what computes them, where all blocks share them: by the words of ``inside``."""
    fused_bias: Candidates = NONE
    """Bias of the hidden vector in ``fused``."""

    norm: Candidates = NONE
    pool_latent: Candidates = NONE
    pool_qkv: Candidates = NONE
    pool_query: Candidates = NONE
    pool_key_value: Candidates = NONE
    pool_key: Candidates = NONE
    pool_value: Candidates = NONE
    pool_out: Candidates = NONE
    pool_norm: Candidates = NONE
    pool_first: Candidates = NONE
    pool_second: Candidates = NONE
    fc_norm: Candidates = NONE
    pre_logits: Candidates = NONE
    head: Candidates = NONE
    head_dist: Candidates = NONE
    projection: Candidates = NONE
    """A head that is a bare (D, K) matrix."""


@dataclass(frozen=True, kw_only=True)
class SecondReading(Reading):
    """How to run a format's files without its rules."""

    names: PartNames
    axes: Literal["pytorch", "jax"] = "pytorch"
    """``pytorch``: linear weights (out, in), kernels (out, in, height, width), leaves ``weight`` and ``bias``.
    ``jax``: (in, out) and (height, width, in, out), leaves ``kernel``, ``scale`` and ``bias``, ``/`` for ``.``."""
    norm_eps: float | None = None
    """The epsilon that the family's code fixes; ``None`` takes the config's."""
    activation: str | None = None
    """The activation that the family's code fixes; ``None`` takes the config's."""
    pool: str | None = None
    """``token``, ``avg``, ``map`` or ``token_avg``; ``None`` takes the config's."""
    pool_where: Mapping[str, str] = field(default_factory=dict)
    """Name of an array → pooling of the files that have it; the first that is there overrules ``pool``."""
    pool_prefix: bool = False
    """Whether a mean is one of all tokens, for families that are plain otherwise."""
    flat_patches: Literal["channels first", "channels last"] = "channels first"
    """The order of the pixels that a patch embedding stored as a linear layer reads."""
    sincos: Literal["to the last", "before the last"] | None = None
    """Whether the family's code adds sines and cosines of column and row to the patches where a file holds no
    positions; their frequencies fall from 1 to 1/10000, or end one step before."""
    rotary: Rotary | None = None
    """The rotary positions of the family's code; ``rope_theta`` of a config.json and ``periods`` of the file overrule
    its own."""
    periods: str = ""
    """The name of the array that holds their periods, where a file has one."""
    plain: bool = True
    """Whether the family has pre-norm blocks with LayerNorm and the usual scale of attention only. If not, the config
    says ``norm``, ``block``, ``qk_scale``, ``pool_prefix`` and ``distilled``."""
    config_json: Mapping[str, Any] | None = None
    """For files whose config.json says heads, epsilon and activation: Hugging Face's keys for these
    (``num_attention_heads``, ``layer_norm_eps``, ``hidden_act``) → their values where config.json leaves them out."""
