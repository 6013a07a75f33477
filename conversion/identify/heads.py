"""Heads under other names than their format's: one linear layer is a head under any index or wrapper.

People replace a classifier by ``Sequential(Dropout, Linear)``, by a layer of another name, or put one beside the model.
A head of several layers is more than a config can hold; it is found too, so that it can be dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from conversion.format import Format
from conversion.identify.family import HIDDEN, identifier
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import Parameter, Stage, VitportError, parameters

_WORDS = re.compile(
    r"(\w*_)?(heads?|fc|classifiers?|logits?|linear|output|probe|scores?|predictions?)(\d+|_\w+)?"
    r"|last_layer|final(_layer)?|out|dense|top",
    re.IGNORECASE,
)
"""What people call a head's outermost module."""
_OTHER_WORDS = re.compile(
    r"(\w*_)?(arc_?face|cos_?face|margin|neck|bottleneck|projectors?|projection|mlp|regressor|regression|bn\w*|dropout"
    r"|classification|embedding_layer|proxies|prototypes?)(\d+|_\w+)?",
    re.IGNORECASE,
)
"""What follows the features too, but is not a classifier even as one linear layer."""
_KERNELS = ("weight", "kernel")


@dataclass(frozen=True)
class Heads:
    """What :func:`find_heads` found."""

    names: Mapping[str, str]
    """Name in the table → the format's own name for a head's tensor."""
    zeros: Mapping[str, Tensor]
    """Biases that the head's layers do not have, under the format's names."""
    unread: tuple[str, ...]
    """Names of the tensors of a head that is not one linear layer."""
    notes: tuple[str, ...] = ()


NO_HEADS = Heads({}, {}, ())


def find_heads(table: TensorTable, names: Mapping[str, str], format: Format) -> Heads:
    """The heads among tensors that the format does not know under their names.

    Args:
        table: the file's tensors.
        names: name in the table → name relative to the model, of all tensors to look at.
        format: the format of the rest.
    """
    widths = _widths(table, names, format)
    groups: dict[str, dict[str, str]] = {}
    for name, bare in names.items():
        root = re.split("[./]", bare)[0]
        if could_be_head(bare) and not _is_known(format, bare, table.tensors[name]):
            groups.setdefault(root, {})[bare] = name
    renamed: dict[str, str] = {}
    zeros: dict[str, Tensor] = {}
    unread: list[str] = []
    notes: list[str] = []
    for root, group in groups.items():
        place = _place(format, root) if _WORDS.fullmatch(root) else None
        layer = _linear(table, group, widths) if place else None
        if place is None or layer is None or place[0] in {*names.values(), *renamed.values()}:
            unread += group.values()
            continue
        kernel, bias = layer
        renamed[kernel] = place[0]
        notes.append(f"took {re.split('[./](weight|kernel)$', names[kernel])[0]} as the head, one linear layer")
        if bias is None:
            zeros[place[1]] = _zeros(table, kernel)
            notes[-1] += " without a bias; zeros are its bias"
        else:
            renamed[bias] = place[1]
    own = {bare: name for name, bare in names.items()}
    for kernel, bias in _pairs(format):
        if kernel in own and bias not in own and _linear(table, {kernel: own[kernel]}, widths) is not None:
            zeros[bias] = _zeros(table, own[kernel])
            notes.append(f"{own[kernel]} has no bias beside it; zeros are its bias")
    return Heads(renamed, zeros, tuple(unread), tuple(notes))


def misfits(table: TensorTable, format: Format) -> tuple[str, ...]:
    """All tensors of the format's own head, where one of its layers does not fit the features or lacks its bias."""
    own = {name: name for name in table}
    widths = _widths(table, own, format)
    for pair in _pairs(format):
        group = {name: name for name in pair if name in own}
        if group and (len(group) < len(pair) or _linear(table, group, widths) is None):
            return tuple(name for name in own if name in head_names(format))
    return ()


def first_kernel(family: str) -> Parameter:
    """The kernel that cuts patches, by its canonical name."""
    return next(it for it in _outside_blocks(family) if it.stage is Stage.EMBED and it.is_kernel)


def could_be_head(bare: str) -> bool:
    """Whether a name is in a module that people put after the features."""
    root = re.split("[./]", bare)[0]
    return bool(_WORDS.fullmatch(root) or _OTHER_WORDS.fullmatch(root))


def head_names(format: Format) -> set[str]:
    """What the format calls the parameters between features and logits."""
    return _foreign(format, (it for it in _outside_blocks(format.family) if it.stage is Stage.CLASSIFIER))


def describe(table: TensorTable, names: Iterable[str]) -> str:
    """What a head is that is not one linear layer, and its tensors with their shapes, at most six of them."""
    listed = list(names)
    batch_norm = any(name.endswith("running_mean") for name in listed)
    what = "a linear-probe head after a BatchNorm" if batch_norm else "not one linear layer on the features"
    told = ", ".join(f"{name} {'x'.join(map(str, table.spec(name)[0])) or 'one number'}" for name in listed[:6])
    return f"{what} ({told}{f' and {len(listed) - 6} more' if len(listed) > 6 else ''})"


def _linear(table: TensorTable, group: Mapping[str, str], widths: set[int]) -> tuple[str, str | None] | None:
    """The names of kernel and bias, where a group of tensors is one linear layer on the features."""
    leaves = {re.split("[./]", bare)[-1]: name for bare, name in group.items()}
    kernel = next((leaves[leaf] for leaf in _KERNELS if leaf in leaves), None)
    if kernel is None or len(leaves) != len(group) or set(leaves) - {*_KERNELS, "bias"} or len(leaves) > 2:
        return None
    shape = table.spec(kernel)[0]
    if len(shape) != 2:
        return None
    rows, columns = shape if kernel.endswith("weight") else shape[::-1]
    bias = leaves.get("bias")
    if columns not in widths or (bias is not None and table.spec(bias)[0] != (rows,)):
        return None
    return kernel, bias


def _zeros(table: TensorTable, kernel: str) -> Tensor:
    """The bias of a layer that has none."""
    shape, dtype = table.spec(kernel)
    count = shape[0] if kernel.endswith("weight") else shape[1]
    return Tensor((count,), dtype, lambda: np.zeros(count, dtype))


def _place(format: Format, root: str) -> tuple[str, str] | None:
    """The format's names for weight and bias of its head, or of the second head if the module has that one's name."""
    pairs = _pairs(format)
    return next((pair for pair in pairs if re.split("[./]", pair[0])[0] == root), pairs[0] if pairs else None)


def _pairs(format: Format) -> list[tuple[str, str]]:
    """The format's names for weight and bias of each head that is a layer of its own."""
    pairs: list[tuple[str, str]] = []
    for kernel in (it for it in _outside_blocks(format.family) if _is_head(it)):
        bias = kernel.name.removesuffix("weight") + "bias"
        pair = format.names.foreign_name(kernel.name, 2), format.names.foreign_name(bias, 1)
        stand_in = Tensor((1, 1), np.dtype(np.float32), lambda: np.zeros((1, 1), np.float32))
        if pair[0].endswith(_KERNELS) and pair[1].endswith("bias") and _is_known(format, pair[0], stand_in):
            pairs.append(pair)
    return pairs


def _is_head(parameter: Parameter) -> bool:
    """Whether it is the kernel of a last layer, whose rows are classes."""
    return parameter.is_kernel and parameter.stage is Stage.CLASSIFIER


def _is_known(format: Format, bare: str, tensor: Tensor) -> bool:
    """Whether the format reads a name as one of its own."""
    try:
        read, unknown = format.names.read(TensorTable({bare: tensor}))
    except VitportError:  # known, but not alone
        return True
    return not unknown and set(read) <= {it.name for it in _outside_blocks(format.family)}


def _foreign(format: Format, of: Iterable[Parameter]) -> set[str]:
    names = (format.names.foreign_name(it.name, len(it.shape)) for it in of)
    return {part for name in names for part in name.split(" + ")}


def _widths(table: TensorTable, names: Mapping[str, str], format: Format) -> set[int]:
    """What a head may read: the tokens' width, as the kernel that cuts patches shows it, or twice that for class token
    and mean side by side, or for each stage; after a hidden layer, that layer's width."""
    own = {bare: name for name, bare in names.items()}

    def outputs(of: Callable[[Parameter], bool]) -> int | None:
        kernel = next((it for it in _outside_blocks(format.family) if it.is_kernel and of(it)), None)
        if kernel is None:
            return None
        foreign = format.names.foreign_name(kernel.name, len(kernel.shape))
        shape = table.spec(own[foreign])[0] if foreign in own else ()
        return None if not shape else shape[0] if foreign.endswith("weight") else shape[-1]

    if (hidden := outputs(lambda it: it.stage is Stage.POOL and it.shape[0] == HIDDEN)) is not None:
        return {hidden}
    width = outputs(lambda it: it.stage is Stage.EMBED)
    return set() if width is None else {width * factor for factor in identifier(format.family).HEAD_WIDTHS}


@cache
def _outside_blocks(family: str) -> tuple[Parameter, ...]:
    configs = identifier(family).EVERY_PARAMETER
    found = {it.name: it for config in configs for it in parameters(config) if it.segment is None}
    return tuple(found.values())
