"""The second description of a format of Swin Transformers; see :mod:`conversion.second_reading`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conversion.second_reading import NONE, Candidates, Reading


@dataclass(frozen=True, kw_only=True)
class SwinPartNames:
    """What a format calls the parts of a Swin Transformer; a part that it does not have has no name.

    Names of layers and norms leave out their last component. ``{s}`` stands for the stage's number and ``{b}`` for the
    block's; ``{2s+1}`` for twice the number and one more. Names in the second group are relative to their block.
    """

    patches: Candidates
    patch_norm: Candidates = NONE
    positions: Candidates = NONE
    block: Candidates
    merge_norm: Candidates
    """Of the merging that leads *to* stage ``{s}``, which formats put at the end of the stage before, or at its own
    beginning."""
    merge: Candidates
    stage_norm: Candidates = NONE
    """Of what a detector reads from stage ``{s}``."""
    norm: Candidates = NONE
    head: Candidates = NONE

    norm1: Candidates
    qkv: Candidates = NONE
    query: Candidates = NONE
    key: Candidates = NONE
    value: Candidates = NONE
    query_bias: Candidates = NONE
    """Version 2's biases where they lie apart from ``qkv``."""
    value_bias: Candidates = NONE
    out: Candidates
    table: Candidates = NONE
    """Of version 1."""
    logit_scale: Candidates = NONE
    bias_first: Candidates = NONE
    bias_second: Candidates = NONE
    coordinates: Candidates = NONE
    """A buffer of version 2, where the family's code takes it from the file."""
    norm2: Candidates
    first: Candidates
    second: Candidates


@dataclass(frozen=True, kw_only=True)
class SwinReading(Reading):
    """How to run a format's files without its rules."""

    names: SwinPartNames
    axes: Literal["pytorch", "jax"] = "pytorch"
    windows: Literal["axis", "min", "height", "pad", "never"] | None = None
    """What the family's code does with a map that is not larger than the window; ``None`` takes the config's.
    ``axis``, ``min``, ``pad`` and ``never`` as in ``SwinConfig``; ``height``: as ``min``, by the height alone."""
    pads: Literal["roll_pad", "pad_roll"] | None = None
    """Whether the family's code pads after the shift or before it; ``None`` takes the config's."""
    margin: Literal["pad", "drop"] | None = "pad"
    """Whether the family's code completes pixels that fill no patch by zeros, or drops them; ``None``: the config's."""
    never_where: Literal["nowhere", "norms", "earlier norms"] = "nowhere"
    """Files whose windows never shrink, whatever ``windows`` says: those with any ``stage_norm``, or with one of a
    stage before the last."""
    recorded: bool = False
    """Whether this project's record, where a file has one, overrules ``windows``, ``pads`` and ``margin``."""
    merges: Literal["corners", "unfold"] = "corners"
    """How patch merging lays out four neighbours: corner after corner, down first; or as ``torch.nn.Unfold`` does,
    channel after channel."""
    eps: float | None = 1e-5
    """Of all norms; ``None`` takes the config's, or config.json's."""
    inner_eps: float | None = 1e-5
    """Of the norms in patch embedding and merging."""
    activation: str | None = "gelu"
    """``None`` takes the config's, or config.json's."""
    config_json: Literal["transformers"] | None = None
    """Whose config.json says windows, epsilon and activation."""
