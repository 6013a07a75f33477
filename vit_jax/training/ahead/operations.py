"""Operations and memory traffic of one instruction of a compiled program."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from vit_jax.training.ahead.exchange import KINDS
from vit_jax.training.ahead.program import Array, Computation, Instruction, Program

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "opt-barrier", "optimization-barrier", "iota", "copy-done", "async-done", "async-update",
}  # fmt: skip
_SLICES = ("dynamic-slice", "slice", "gather")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_ESTIMATE = re.compile(r'"cost_estimate":\{"flops":"(\d+)"')
_SUMMED = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")


def flops(program: Program, here: Computation, one: Instruction) -> float:
    """Operations of matrix products and convolutions, two for a multiply-add, also those inside fusions.

    A convolution counts where the input is: not where a window lies on padding or between dilated values, which is
    how XLA writes batched products. Of a kernel that is not XLA's count what its authors say, if they do.
    """
    if one.opcode == "dot":
        return _dot(here, one)
    if one.opcode == "convolution":
        return _convolution(here, one)
    if one.opcode == "custom-call":
        return _kernel(here, one)
    inside = 0.0
    if one.opcode in ("fusion", "async-start", "call"):
        for _, name in one.called:
            inner = program.computations[name]
            inside += sum(flops(program, inner, each) for each in inner.instructions)
    return inside


def traffic(program: Program, here: Computation, one: Instruction) -> float:
    """Bytes that an instruction reads from and writes to the device's main memory, with the padding of tiles.

    Of an operand that a fusion only slices, the slices count, and of an array that is updated in place, the update.
    """
    if one.opcode in _FREE or one.opcode.endswith("-done") or "AllocateBuffer" in one.rest:
        return 0.0
    if one.opcode == "fusion":
        inner = program.computations[dict(one.called)["calls"]]
        read = sum(
            _read(program, inner, each.name, _all(here, each.operands, one.operands))
            for each in _parameters(inner, one.operands)
        )
        return read + _written(program, inner, inner.root, one.arrays)
    if one.opcode in _SLICES:
        return 2 * _in_memory(one.arrays)
    if one.opcode == "dynamic-update-slice":
        return 2 * _in_memory(_arrays(here, one.operands[1]))
    read = sum(_in_memory(_arrays(here, name)) for name in one.operands)
    if one.opcode == "custom-call":
        return read + _in_memory([array for array in one.arrays if array.dtype not in ("s8", "u8")])  # room to work in
    if one.opcode == "copy-start":  # the copy, and the operand again
        return read + _in_memory(one.arrays[:1])
    if one.opcode == "slice-start":  # the operand again, and the slice
        return one.arrays[1].held_bytes * sum(array.space == 0 for array in one.arrays[:2])
    if one.opcode in ("async-start", "all-gather-start", "collective-permute-start"):
        return read + _in_memory(one.arrays[len(one.operands) : 2 * len(one.operands)])
    return read + _in_memory(one.arrays)


def _parameters(inner: Computation, operands: Sequence[str]) -> list[Instruction]:
    found = [each for each in inner.instructions if each.opcode == "parameter" and each.number is not None]
    return [each for each in found if each.number is not None and each.number < len(operands)]


def _all(here: Computation, number: Sequence[str], operands: Sequence[str]) -> float:
    return _in_memory(_arrays(here, operands[int(number[0])]))


def _read(program: Program, inner: Computation, name: str, whole: float) -> float:
    """Bytes read of one array within a fusion; ``whole``: of all of it."""
    total = 0.0
    if whole == 0:
        return 0.0
    for user in inner.users.get(name, []):
        if user.opcode in _SLICES and user.operands[0] == name:
            total += user.arrays[0].held_bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue  # in place
        elif user.opcode == "tuple" or user.opcode in KINDS:
            continue  # passed on, or already on its way to other devices
        elif user.opcode == "bitcast":
            total += _read(program, inner, user.name, whole)
        elif user.opcode == "fusion":
            nested = program.computations[dict(user.called)["calls"]]
            for each in _parameters(nested, user.operands):
                if user.operands[int(each.operands[0])] == name:
                    total += _read(program, nested, each.name, whole)
        else:
            return whole
    return min(total, whole)


def _written(program: Program, inner: Computation, root: Instruction, arrays: Sequence[Array]) -> float:
    if root.opcode == "tuple":
        return sum(
            _written(program, inner, inner.by_name[name], [array])
            for name, array in zip(root.operands, arrays, strict=False)
            if name in inner.by_name
        )
    if root.opcode == "parameter":
        return 0.0  # passed on
    if root.opcode == "dynamic-update-slice":
        update = inner.by_name.get(root.operands[1])
        space = all(array.space == 0 for array in arrays)
        return _held(update.arrays) if update is not None and space else 0.0
    if root.opcode == "bitcast" and root.operands[0] in inner.by_name:
        return _written(program, inner, inner.by_name[root.operands[0]], arrays)
    if root.opcode == "fusion":
        nested = program.computations[dict(root.called)["calls"]]
        return _written(program, nested, nested.root, arrays)
    return _in_memory(arrays)


def _arrays(here: Computation, name: str) -> tuple[Array, ...]:
    found = here.by_name.get(name)
    return () if found is None else found.arrays


def _in_memory(arrays: Sequence[Array]) -> float:
    return _held([array for array in arrays if array.space == 0])


def _held(arrays: Sequence[Array]) -> float:
    return sum(array.held_bytes for array in arrays)


def _kernel(here: Computation, one: Instruction) -> float:
    """Of a kernel from a library: cuBLAS's products, cuDNN's attention, or as its authors say."""
    if told := _ESTIMATE.search(one.rest):
        return float(told[1])
    if "__cublas" in one.rest and (summed := _SUMMED.search(one.rest)) and (left := _arrays(here, one.operands[0])):
        terms = math.prod(left[0].shape[int(axis)] for axis in re.findall(r"\d+", summed[1]))
        return 2.0 * math.prod(one.arrays[0].shape) * terms
    if "__cudnn$fmha" in one.rest and len(one.arrays[0].shape) == 4:
        products = 5 if "Backward" in one.rest else 2
        return 2.0 * products * math.prod(one.arrays[0].shape) * one.arrays[0].shape[2]
    return 0.0


def _dot(here: Computation, one: Instruction) -> float:
    left = _arrays(here, one.operands[0])
    summed = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.rest)
    if not left or summed is None:
        return 0.0
    terms = math.prod(left[0].shape[int(axis)] for axis in summed[1].split(",") if axis)
    return 2.0 * math.prod(one.arrays[0].shape) * terms


def _convolution(here: Computation, one: Instruction) -> float:
    left, right = (_arrays(here, name) for name in one.operands[:2])
    labels = _LABELS.search(one.rest)
    if not left or not right or labels is None:
        return 0.0
    inputs, kernel, outputs = labels.groups()
    groups = {
        name: int(found[1]) if (found := re.search(rf"{name}_group_count=(\d+)", one.rest)) else 1
        for name in ("feature", "batch")
    }
    batch = left[0].shape[inputs.index("b")]
    features = left[0].shape[inputs.index("f")] / groups["feature"]
    made = right[0].shape[kernel.index("o")]
    window = _window(one.rest, sum(letter.isdigit() for letter in kernel))
    valid = 1
    for axis in sorted(letter for letter in kernel if letter.isdigit()):
        valid *= _valid(
            left[0].shape[inputs.index(axis)],
            right[0].shape[kernel.index(axis)],
            one.arrays[0].shape[outputs.index(axis)],
            {name: values[int(axis)] for name, values in window.items()},
        )
    return 2.0 * (batch / groups["batch"]) * features * made * valid


def _window(text: str, axes: int) -> dict[str, list[int]]:
    """Stride, low padding and dilations along each spatial axis."""
    match = _WINDOW.search(text)
    given = dict(part.split("=", 1) for part in match[1].split()) if match else {}

    def numbers(name: str, default: int) -> list[int]:
        return [int(part.split("_")[0]) for part in given[name].split("x")] if name in given else [default] * axes

    return {
        "stride": numbers("stride", 1),
        "pad": numbers("pad", 0),
        "input_dilation": numbers("lhs_dilate", 1),
        "kernel_dilation": numbers("rhs_dilate", 1),
    }


def _valid(inputs: int, kernel: int, outputs: int, window: dict[str, int]) -> int:
    """Pairs of an output and a place in the kernel, along one axis, that meet a value of the input."""
    at = np.arange(outputs)[:, None] * window["stride"] - window["pad"]
    at = at + np.arange(kernel)[None, :] * window["kernel_dilation"]
    dilated = window["input_dilation"]
    return int(np.sum((at >= 0) & (at % dilated == 0) & (at // dilated < inputs)))
