"""Why a stage of B computes something else: what would turn A's result into B's, tried one by one.

A cause is named only if it brings the distance down to rounding (in float64 where both models run in it), and every one
that does is named. What is tried needs A's own input, its weights and its result; no code of either model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erf

from vit_parity.bound import relative
from vit_parity.porting.attention import between, head_count, whole
from vit_parity.porting.findings import owner
from vit_parity.porting.layouts import layouts
from vit_parity.porting.stages import Parts, output_key
from vit_parity.porting.suggest import known_kind

if TYPE_CHECKING:
    from vit_parity.porting.aligned import Aligned
    from vit_parity.porting.compare import Side
    from vit_parity.porting.findings import Fault
    from vit_parity.porting.stages import Observed

Told = tuple[str, np.ndarray]
"""What B does, in words that follow its name, and what it would then compute."""
_EXACT = 1e-9
"""Largest relative distance that counts as explained in float64; constants of a model may be rounded to float32, so
:data:`_CONSTANTS` is allowed where the difference itself is much larger."""
_CONSTANTS = 3e-7


@dataclass(frozen=True)
class Evidence:
    """What causes are tried on."""

    a: Side
    b: Side
    aligned: Aligned
    alone: Observed | None


def causes(fault: Fault, known: Evidence) -> tuple[str, ...]:
    """Every cause that explains a fault down to rounding."""
    if fault.shown == "precision":
        return _coarser(fault, known)
    seen = known.alone if fault.shown != "first" else None
    if seen is None or fault.key_b not in seen.values:
        return ()
    y = known.aligned.a.values[fault.key].astype(np.float64)
    theirs = seen.values[fault.key_b].astype(np.float64)
    options = [it.to_a(theirs, y.shape) for it in layouts(y.shape, theirs.shape) if it.axes == _axes(fault, known)]
    if not options or not np.isfinite(options[0]).all():
        return ()
    target = options[0]
    before = relative(target, y)
    allowed = min(
        max(_EXACT, min(_CONSTANTS, before / 30)) if known.aligned.b is known.b.wide else fault.limit, before / 4
    )
    tried = itertools.chain(_of_stage(fault, known, y), _of_result(y, target))
    return tuple(dict.fromkeys(words for words, value in tried if _fits(value, target, allowed)))


def _of_stage(fault: Fault, known: Evidence, y: np.ndarray) -> Iterator[Told]:
    """What depends on the stage: its kind, its weights, its input."""
    aligned = known.aligned
    if fault.shown == "input":  # the code before it: most likely a function of what was computed last
        keys = list(aligned.a.values)
        before = keys[: keys.index(fault.key)][::-1]
        near = [aligned.a.values[key] for key in before if key[1][0] == ">"][:4]
        for x in near:
            yield from _functions(x.astype(np.float64), y)
        yield from _attention_before(fault, known, near, y)
        return
    stage = output_key(fault.stage)[0]
    given = [array.astype(np.float64) for array in aligned.a.inputs(stage).values()]
    own = known.a.model.parts(stage) if known.a.model else Parts()
    kind = known_kind(aligned.a.kinds.get(stage, ""))
    for x in given:
        if x.shape == y.shape:
            yield "returns its input as it is", x
        yield from _functions(x, y)
    if given:
        maker = {"linear": _linear, "layer norm": _norm, "rms norm": _norm, "batch norm": _batch_norm,
                 "convolution": _convolution}.get(kind or "")  # fmt: skip
        if maker is not None:
            yield from maker(given[0], y, own)
    if kind == "attention" and given and known.a.model:
        yield from whole(given[0], y, own, known.a.model.parts(f"{stage}.out_proj"))
    for name, parameter in own.arrays.items():
        if name.startswith("running") or parameter.ndim != 1:
            continue
        for axis in (-1, 1):
            if y.ndim > abs(axis) - (axis < 0) and y.shape[axis] == parameter.size and "bias" in name:
                added = np.expand_dims(parameter.astype(np.float64), list(range(1, y.ndim - axis % y.ndim)))
                yield f"leaves out {name}", y - added
                yield f"adds {name} twice", y + added


def _attention_before(fault: Fault, known: Evidence, near: list[np.ndarray], y: np.ndarray) -> Iterator[Told]:
    """Attention written out in the module round a fault, whose parts were computed last."""
    if known.a.model is None or y.ndim != 3:
        return
    around = owner(fault.stage)
    heads = head_count(known.a.model.parts(around).facts)
    counts = (heads,) if heads else tuple(it for it in range(2, 17) if y.shape[-1] % it == 0)
    joint = [it.astype(np.float64) for it in near[:1] if it.shape[-1] == 3 * y.shape[-1]]
    parts = joint or [it.astype(np.float64) for it in near[2::-1] if it.shape == y.shape]
    for count in counts:
        for order in itertools.permutations(parts) if len(parts) == 3 else [parts] * bool(joint):
            found = list(between(list(order), y, count))
            yield from found
            if found:
                return


def _of_result(y: np.ndarray, target: np.ndarray) -> Iterator[Told]:
    """What can be read off A's result and B's alone."""
    yield "returns zeros", np.zeros_like(y)
    if size := float((y * y).sum()):
        factor = float((y * target).sum()) / size
        yield f"has {_number(factor)} times the result", y * factor
    for order in itertools.permutations(range(1, y.ndim)) if y.ndim <= 4 else ():
        turned = y.transpose(0, *order)
        if turned.shape == y.shape and order != tuple(range(1, y.ndim)):
            yield f"swaps axes {_moved(order)}", turned
    for axis in range(y.ndim):
        yield f"reverses axis {axis}", np.flip(y, axis)
        for count in (2, 3, 4):
            if axis and y.shape[axis] % count == 0:
                parts = np.split(y, count, axis)
                for order in itertools.permutations(range(count)):
                    if order != tuple(range(count)):
                        yield (f"has the {_PARTS[count]} of axis {axis} in the order {order}",
                               np.concatenate([parts[at] for at in order], axis))  # fmt: skip
    for axis in range(1, y.ndim):
        for shift in (1, -1):
            yield f"is shifted by {shift} along axis {axis}", np.roll(y, shift, axis)


_PARTS = {2: "halves", 3: "thirds", 4: "quarters"}


def _functions(x: np.ndarray, y: np.ndarray) -> Iterator[Told]:
    """Another activation function, if A's result is one of them."""
    if x.shape != y.shape:
        return
    values = {name: function(x) for name, function in _ACTIVATIONS.items()}
    own = [name for name, value in values.items() if relative(value, y) < 1e-6]
    for name, value in values.items():
        if own and name not in own:
            yield f"uses {name} instead of {own[0]}", value


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "GELU": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))),
    "tanh GELU": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "Quick GELU": lambda x: x / (1 + np.exp(-1.702 * x)),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "ReLU": lambda x: np.maximum(x, 0),
    "leaky ReLU (0.01)": lambda x: np.where(x > 0, x, 0.01 * x),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "squared ReLU": lambda x: np.maximum(x, 0) ** 2,
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "no activation": lambda x: x,
}


def _linear(x: np.ndarray, y: np.ndarray, own: Parts) -> Iterator[Told]:
    weight = next((it.astype(np.float64) for name, it in own.arrays.items() if it.ndim == 2), None)
    if weight is None:
        return
    bias = next((it.astype(np.float64) for name, it in own.arrays.items() if name == "bias"), np.zeros(()))
    square = weight.shape[0] == weight.shape[1]
    straight = next((it for it in (weight.T, weight) if it.shape[0] == x.shape[-1] and it.shape[1] == y.shape[-1]
                     and relative(x @ it + bias, y) < 1e-5), None)  # fmt: skip
    if straight is None:
        return
    if square:
        yield "reads its matrix transposed", x @ straight.T + bias
    yield "reads its matrix in another order (reshaped, not transposed)", x @ straight.T.reshape(straight.shape) + bias
    yield "has the rows of its matrix reversed", x @ straight[::-1] + bias
    for count in (2, 3, 4):
        if straight.shape[0] % count == 0:
            parts = np.split(straight, count, 0)
            for order in itertools.permutations(range(count)):
                if order != tuple(range(count)):
                    joined = np.concatenate([parts[at] for at in order], 0)
                    yield f"has the {_PARTS[count]} of its input features in the order {order}", x @ joined + bias
    for name, rounded in _ROUNDED.items():
        yield f"multiplies in {name}", rounded(x) @ rounded(straight) + bias


def _norm(x: np.ndarray, y: np.ndarray, own: Parts) -> Iterator[Told]:
    """Layer and RMS norm over the last axis."""
    scale = next((it.astype(np.float64) for name, it in own.arrays.items() if name in ("weight", "scale")), np.ones(()))
    bias = next((it.astype(np.float64) for name, it in own.arrays.items() if name == "bias"), np.zeros(()))
    centred = x - x.mean(-1, keepdims=True)
    power = (x**2).mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    count = x.shape[-1]
    numbers = {float(it) for name, it in own.facts.items() if "eps" in name and isinstance(it, float)}
    for eps in sorted(_EPSILONS | numbers):
        layer, rms = centred / np.sqrt(variance + eps), x / np.sqrt(power + eps)
        told = f"uses epsilon {eps:g}"
        forms = {
            told: layer * scale + bias,
            f"{told}, and does not subtract the mean": rms * scale + bias,
            f"{told}, and leaves out the scale": layer + bias,
            f"{told}, and leaves out the bias": layer * scale,
            f"{told}, and leaves out scale and bias": layer,
            f"{told}, added to the standard deviation": centred / (np.sqrt(variance) + eps) * scale + bias,
            f"{told}, with the variance of {count} - 1": centred / np.sqrt(variance * count / (count - 1) + eps) * scale
            + bias,
            f"{told}, and adds 1 to the scale": layer * (1 + scale) + bias,
            f"{told}, as an RMS norm": rms * scale,
        }
        own_eps = relative(forms[told], y) < 1e-12 or (eps in numbers and relative(forms[told], y) < 1e-6)
        for words, value in forms.items():
            words = words.removeprefix(f"{told}, and ").replace(f"{told}, ", "has epsilon ") if own_eps else words
            yield words, value


_EPSILONS = {0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2}


def _batch_norm(x: np.ndarray, y: np.ndarray, own: Parts) -> Iterator[Told]:
    """Over the axis that has as many channels as the module; statistics of the batch are training mode's."""
    arrays = {name.replace("running_", "").replace("scale", "weight"): it.astype(np.float64)
              for name, it in own.arrays.items()}  # fmt: skip
    if "mean" not in arrays or "var" not in arrays:
        return
    axis = next((it for it in (1, -1) if x.ndim > 1 and x.shape[it] == arrays["mean"].size), None)
    if axis is None:
        return
    shape = [1] * x.ndim
    shape[axis] = -1
    kept = {name: it.reshape(shape) for name, it in arrays.items() if it.ndim == 1}
    weight, bias = kept.get("weight", 1.0), kept.get("bias", 0.0)
    others = tuple(at for at in range(x.ndim) if at != axis % x.ndim)
    numbers = {float(it) for name, it in own.facts.items() if "eps" in name and isinstance(it, float)}
    for eps in sorted(_EPSILONS | numbers):
        fixed = (x - kept["mean"]) / np.sqrt(kept["var"] + eps)
        batch = (x - x.mean(others, keepdims=True)) / np.sqrt(x.var(others, keepdims=True) + eps)
        yield f"uses epsilon {eps:g}", fixed * weight + bias
        yield "uses the statistics of the batch, as in training mode", batch * weight + bias
        if eps in numbers:
            yield "leaves out the scale", fixed + bias
            yield "leaves out the bias", fixed * weight
            yield "has statistics 0 and 1", x / math.sqrt(1 + eps) * weight + bias
            yield (
                "takes the variance for the standard deviation",
                (x - kept["mean"]) / (kept["var"] + eps) * weight + bias,
            )


def _convolution(x: np.ndarray, y: np.ndarray, own: Parts) -> Iterator[Told]:
    """Of two dimensions, by PyTorch's own product; A is PyTorch's here."""
    weight = own.arrays.get("weight")
    if weight is None or weight.ndim != 4 or x.ndim != 4 or "stride" not in own.facts:
        return
    import torch
    from torch.nn.functional import conv2d, pad

    facts = own.facts
    kernel = torch.tensor(weight.astype(np.float64))
    image = torch.tensor(x)
    bias = own.arrays.get("bias")
    added = None if bias is None else torch.tensor(bias.astype(np.float64))

    def product(kernel: torch.Tensor, sides: tuple[int, int, int, int]) -> np.ndarray:
        return conv2d(pad(image, sides), kernel, added, facts["stride"], 0, facts["dilation"], facts["groups"]).numpy()

    if not isinstance(facts.get("padding"), tuple):
        return
    down, across = facts["padding"]
    usual = (across, across, down, down)
    if facts["groups"] == 1 and kernel.shape[0] == kernel.shape[1]:
        yield "swaps the input and output channels of its kernel", product(kernel.transpose(0, 1), usual)
    yield "flips its kernel", product(kernel.flip(2, 3), usual)
    if kernel.shape[2] == kernel.shape[3]:
        yield "swaps rows and columns of its kernel", product(kernel.transpose(2, 3), usual)
    for left, top in itertools.product(range(2 * across + 1), range(2 * down + 1)):
        if (left, top) != (across, down):
            sides = (left, 2 * across - left, top, 2 * down - top)
            yield f"pads by {sides[2:]} in height and {sides[:2]} in width", product(kernel, sides)


def _coarser(fault: Fault, known: Evidence) -> tuple[str, ...]:
    """A run that is off where its float64 run is not: a coarser dtype, told by the distance."""
    return ("computes more coarsely than its dtype: look for casts, and for the precision of matrix products",)


def _axes(fault: Fault, known: Evidence) -> tuple[int, ...] | None:
    """The order of A's axes in B's array of a fault."""
    if fault.shown == "input":
        return known.aligned.slots[fault.key_b][1].axes
    found = [known.aligned.layouts[pair.name] for pair in known.aligned.pairs if output_key(pair.a) == fault.key]
    return found[0].axes if found and found[0] is not None else None


def _fits(value: np.ndarray, target: np.ndarray, allowed: float) -> bool:
    return value.shape == target.shape and relative(value, target) <= allowed


def _number(factor: float) -> str:
    return f"{factor:.6g}"


def _moved(order: tuple[int, ...]) -> str:
    moved = [str(at) for at, axis in enumerate(order, 1) if at != axis]
    return " and ".join(moved)


def _rounded(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    def rounded(x: np.ndarray) -> np.ndarray:
        mantissa, exponent = np.frexp(x)
        return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)

    return rounded


_ROUNDED = {"bfloat16": _rounded(8), "float16": _rounded(11), "TensorFloat-32": _rounded(11)}
