"""What norms may do instead: epsilon, mean, scale, bias, statistics and groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vit_parity.bound import relative
from vit_parity.porting.stages import Parts

Told = tuple[str, np.ndarray]
_EPSILONS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
_AGREES = 1e-6


@dataclass(frozen=True)
class _Norm:
    """A norm over some axes; statistics of its own where they are given."""

    axes: tuple[int, ...]
    scale: np.ndarray
    bias: np.ndarray
    eps: float = 0.0
    centred: bool = True
    lost: int = 0
    """Subtracted from the count of the variance."""
    beside: bool = False
    """Whether epsilon is added to the standard deviation."""
    one: float = 0.0
    """Added to the scale."""

    def of(self, x: np.ndarray) -> np.ndarray:
        """The result."""
        moved = x - x.mean(self.axes, keepdims=True) if self.centred else x
        count = math.prod(x.shape[axis] for axis in self.axes)
        variance = (moved**2).sum(self.axes, keepdims=True) / max(count - self.lost, 1)
        root = np.sqrt(variance) + self.eps if self.beside else np.sqrt(variance + self.eps)
        return moved / root * (self.scale + self.one) + self.bias

    def epsilon_of(self, x: np.ndarray, y: np.ndarray) -> float:
        """The epsilon that a result tells, to three digits."""
        moved = x - x.mean(self.axes, keepdims=True) if self.centred else x
        return _told_epsilon(moved * (self.scale + self.one), y - self.bias, (moved**2).mean(self.axes, keepdims=True))


def layer_norm(x: np.ndarray, y: np.ndarray, target: np.ndarray, own: Parts) -> Iterator[Told]:
    """Layer and RMS norm, over the last axis, or over the channels of maps (B, C, H, W)."""
    for axis in (-1, 1):
        if x.shape != y.shape or x.ndim < abs(axis) + 1:
            continue
        scale, bias = _affine(own, x.ndim, axis)
        if scale.ndim and x.shape[axis] != scale.size:
            continue
        plain = _Norm((axis,), scale, bias)
        found = next(
            (it for eps in _epsilons(own) for centred, one in itertools.product((True, False), (0.0, 1.0))
             if relative((it := replace(plain, eps=eps, centred=centred, one=one)).of(x), y) < _AGREES), None,
        )  # fmt: skip
        if found is not None:
            yield from _variations(found, x, y, target, own)
            return


def _variations(base: _Norm, x: np.ndarray, y: np.ndarray, target: np.ndarray, own: Parts) -> Iterator[Told]:
    zero, ones = np.zeros(()), np.ones(())
    changes: dict[str, _Norm] = {
        "": base,
        "does not subtract the mean" if base.centred else "subtracts the mean": replace(base, centred=not base.centred),
        "leaves out the scale": replace(base, scale=ones, one=0.0),
        "leaves out the bias": replace(base, bias=zero),
        "leaves out scale and bias": replace(base, scale=ones, bias=zero, one=0.0),
        "adds epsilon to the standard deviation": replace(base, beside=True),
        "has the variance of n - 1": replace(base, lost=1),
        "adds 1 to the scale" if not base.one else "does not add 1 to the scale": replace(base, one=1.0 - base.one),
    }
    if base.centred:
        changes["is an RMS norm"] = replace(base, centred=False, bias=zero)
    for words, norm in changes.items():
        for eps in (*_epsilons(own), norm.epsilon_of(x, target)):
            other = replace(norm, eps=eps)
            same = relative(replace(base, eps=eps).of(x), y) < 1e-12 or eps == base.eps
            yield _with_epsilon(words, eps, same=same), other.of(x)


def batch_norm(x: np.ndarray, target: np.ndarray, own: Parts) -> Iterator[Told]:
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
    weight, bias = kept.get("weight", np.ones(())), kept.get("bias", np.zeros(()))
    others = tuple(at for at in range(x.ndim) if at != axis % x.ndim)
    mean, var = x.mean(others, keepdims=True), x.var(others, keepdims=True)
    count = x.size // x.shape[axis]
    own_eps = next((float(it) for name, it in own.facts.items() if "eps" in name and isinstance(it, float)), 1e-5)

    def normed(mean: np.ndarray | float = kept["mean"], var: np.ndarray | float = kept["var"], eps: float = own_eps,
               weight: np.ndarray | float = weight, bias: np.ndarray | float = bias) -> np.ndarray:  # fmt: skip
        return (x - mean) / np.sqrt(var + eps) * weight + bias

    told = _told_epsilon((x - kept["mean"]) * weight, target - bias, np.broadcast_to(kept["var"], x.shape))
    for eps in (*_epsilons(own), told):
        if eps != own_eps:
            yield f"uses epsilon {eps:g}", normed(eps=eps)
        yield "uses the statistics of the batch, as in training mode", normed(mean, var, eps)
    yield "leaves out the scale", normed(weight=1.0)
    yield "leaves out the bias", normed(bias=0.0)
    yield "has statistics 0 and 1", normed(0.0, 1.0)
    yield "has the mean 0 of a fresh layer", normed(mean=0.0)
    yield "has the variance 1 of a fresh layer", normed(var=1.0)
    yield (
        "takes the variance for the standard deviation",
        (x - kept["mean"]) / (kept["var"] + own_eps) * weight + bias,
    )
    for share, unbiased in itertools.product((0.001, 0.01, 0.1, 0.9, 0.99, 0.999), (True, False)):
        moved = {
            "mean": (1 - share) * kept["mean"] + share * mean,
            "var": (1 - share) * kept["var"] + share * var * (count / max(count - 1, 1) if unbiased else 1.0),
        }
        how = "" if unbiased else ", by the variance of n instead of n - 1"
        yield f"has moved its statistics {share:g} of the way to this batch's{how}", normed(**moved)


def group_norm(x: np.ndarray, y: np.ndarray, target: np.ndarray, own: Parts) -> Iterator[Told]:
    """Of maps or sequences whose channels are the second axis (PyTorch) or the last."""
    facts, channels = own.facts, next((it.size for it in own.arrays.values() if it.ndim == 1), 0)
    count = facts.get("num_groups", channels)
    axis = next((it for it in (1, -1) if x.ndim > 2 and x.shape[it] == channels), None)
    if axis is None or not isinstance(count, int) or x.shape != y.shape or channels % count:
        return
    x, y, target = (np.moveaxis(it, axis, 1) for it in (x, y, target))
    scale, bias = _affine(own, x.ndim, 1)
    no_scale, no_bias = np.ones(()), np.zeros(())

    def normed(groups: int = count, eps: float = 1e-5, scale: np.ndarray = scale, bias: np.ndarray = bias, *,
               dealt: bool = False, over: str = "group") -> np.ndarray:  # fmt: skip
        each = channels // groups
        cut = x.reshape(x.shape[0], *((each, groups) if dealt else (groups, each)), -1)
        axes = {"group": (1, 3) if dealt else (2, 3), "channels": (2,)}[over]
        moved = cut - cut.mean(axes, keepdims=True)
        return (moved / np.sqrt((moved**2).mean(axes, keepdims=True) + eps)).reshape(x.shape) * scale + bias

    base = next((eps for eps in _epsilons(own) if relative(normed(eps=eps), y) < _AGREES), None)
    if base is None:
        return
    cut = x.reshape(x.shape[0], count, -1)
    moved = cut - cut.mean(-1, keepdims=True)
    of_scale, of_bias = np.broadcast_to(scale, x.shape), np.broadcast_to(bias, x.shape)
    told = _told_epsilon(
        moved * of_scale.reshape(cut.shape), (target - of_bias).reshape(cut.shape), (moved**2).mean(-1, keepdims=True)
    )
    found: list[Told] = []
    for eps in dict.fromkeys((base, *_epsilons(own), told)):
        same = eps == base
        if not same:
            found.append((f"uses epsilon {eps:g}", normed(eps=eps)))
        changes = {
            "leaves out the scale": normed(eps=eps, scale=no_scale),
            "leaves out the bias": normed(eps=eps, bias=no_bias),
            "leaves out scale and bias": normed(eps=eps, scale=no_scale, bias=no_bias),
            "deals channels to groups one by one instead of in runs": normed(eps=eps, dealt=True),
            "normalizes each channel by itself": normed(channels, eps),
            "normalizes each place by itself": normed(eps=eps, over="channels"),
        }
        for other in (it for it in range(1, channels) if channels % it == 0 and it != count):
            changes[f"has {other} group{'s' * (other > 1)} instead of {count}"] = normed(other, eps)
        found += [(_with_epsilon(words, eps, same=same), value) for words, value in changes.items()]
    for words, value in found:
        yield words, np.moveaxis(value, 1, axis)


def _affine(own: Parts, ndim: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and bias, along the axis that they belong to."""
    shape = [1] * ndim
    shape[axis] = -1
    scale = next((it for name, it in own.arrays.items() if name in ("weight", "scale")), None)
    bias = next((it for name, it in own.arrays.items() if name in ("bias", "offset")), None)
    wide = (None if it is None or it.ndim != 1 else it.astype(np.float64).reshape(shape) for it in (scale, bias))
    found = list(wide)
    return (np.ones(()) if found[0] is None else found[0], np.zeros(()) if found[1] is None else found[1])


def _epsilons(own: Parts) -> tuple[float, ...]:
    """The module's own first."""
    numbers = [float(it) for name, it in own.facts.items() if "eps" in name and isinstance(it, float)]
    return tuple(dict.fromkeys((*numbers, *_EPSILONS)))


def _told_epsilon(moved: np.ndarray, normed: np.ndarray, variance: np.ndarray) -> float:
    """The number under the root that turns one into the other, less the variance; in three digits."""
    large = np.abs(normed) > np.abs(normed).mean()
    eps = float(np.median(((moved / np.where(large, normed, 1.0)) ** 2 - variance)[large])) if large.any() else 0.0
    return float(f"{eps:.3g}") if 0 < eps < 1e3 else 0.0


def _with_epsilon(words: str, eps: float, *, same: bool) -> str:
    told = f"uses epsilon {eps:g}"
    return words or told if same else f"{told}, and {words}" if words else told
