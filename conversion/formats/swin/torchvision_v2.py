"""torchvision's ``swin_v2_t``, ``swin_v2_s`` and ``swin_v2_b``: a state_dict in a PyTorch file.

Its bias of queries, keys and values has a third for keys, which the forward pass replaces by zeros. The coordinates of
relative positions come from the file, so that a pretraining window can be stated there, and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from conversion.formats.swin import torchvision
from conversion.formats.swin.agreement import unsupported
from conversion.formats.swin.buffers import Buffered
from conversion.formats.swin.torchvision import BLOCK, PARTS, RULES, THEIRS, unsupported_windows
from conversion.second_reading.swin import SwinPartNames, SwinReading
from conversion.tensors.rules import Rule, module
from conversion.tensors.table import TensorTable
from vit_spec import Config, Preprocessing, SwinConfig

_BIAS = ".attn.qkv.bias"


@dataclass(frozen=True)
class WithKeyBias:
    """The format has one bias for queries, keys and values; there is no bias of keys."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        query, _, value = np.split(arrays[0], 3)
        return [query, value]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        query, value = arrays
        return [np.concatenate([query, np.zeros_like(query), value])]


def remarks(table: TensorTable) -> list[str]:
    """A key bias other than zero, which has no effect in torchvision either."""
    there = [name for name in table if name.endswith(_BIAS) and np.split(table[name], 3)[1].any()]
    if not there:
        return []
    return [
        f"left out the bias of keys in {there[0]}" + (f" and {len(there) - 1} more" if there[1:] else "") +
        ": torchvision's forward pass replaces it by zeros"
    ]  # fmt: skip


def cannot_hold(config: SwinConfig) -> list[str]:
    """Version 2 with torchvision's options."""
    return unsupported(config, 2, margin="drop", qkv_bias=(True,)) + unsupported_windows(config)


_READING = torchvision.FORMAT.second_reading
assert isinstance(_READING, SwinReading)
FORMAT = replace(
    torchvision.FORMAT,
    name="torchvision-swinv2",
    summary="torchvision's swin_v2_* state_dict in a PyTorch file",
    names=Buffered(
        (
            *RULES,
            Rule((f"{BLOCK}.attn.q_bias", f"{BLOCK}.attn.v_bias"), f"{THEIRS}{_BIAS}", WithKeyBias()),
            Rule(f"{BLOCK}.attn.logit_scale", f"{THEIRS}.attn.logit_scale"),
            *module(f"{BLOCK}.attn.cpb_mlp.0", f"{THEIRS}.attn.cpb_mlp.0"),
            Rule(f"{BLOCK}.attn.cpb_mlp.2.weight", f"{THEIRS}.attn.cpb_mlp.2.weight"),
        ),
        THEIRS,
        flat=True,
    ),
    signature=("features.0.0.weight", "features.1.0.attn.logit_scale"),
    remarks=remarks,
    preprocessing=Preprocessing(crop_fraction=256 / 260),
    cannot_hold=cannot_hold,
    second_reading=replace(
        _READING,
        names=SwinPartNames(
            **PARTS, logit_scale=("attn.logit_scale",), bias_first=("attn.cpb_mlp.0",),
            bias_second=("attn.cpb_mlp.2",), coordinates=("attn.relative_coords_table",),
        ),
    ),
)  # fmt: skip
