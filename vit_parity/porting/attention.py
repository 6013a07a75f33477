"""What attention may do instead, from its queries, keys and values: tried only where the usual formula is A's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vit_parity.bound import relative
from vit_parity.porting.stages import Parts

Told = tuple[str, np.ndarray]
_HEADS = ("num_heads", "heads", "n_head", "n_heads", "num_attention_heads", "nhead", "head_count")
_WIDTHS = ("head_dim", "head_size", "attention_head_size", "head_width")
_AGREES = 1e-6


def whole(x: np.ndarray, y: np.ndarray, own: Parts, out: Parts) -> Iterator[Told]:
    """``torch.nn.MultiheadAttention`` on itself, its output product included.

    Args:
        x: (B, N, D), its input.
        y: (B, N, D), what A's returns.
        own: the module.
        out: its ``out_proj``.
    """
    if "in_proj_weight" not in own.arrays or "weight" not in out.arrays or x.ndim != 3:
        return
    joint, kernel = (it.astype(np.float64).T for it in (own.arrays["in_proj_weight"], out.arrays["weight"]))
    bias_in, bias_out = (_bias(arrays, name, size) for arrays, name, size in (
        (own.arrays, "in_proj_bias", joint.shape[1]), (out.arrays, "bias", kernel.shape[1])))  # fmt: skip
    heads = int(own.facts["num_heads"])

    def finished(mixed: np.ndarray, by: np.ndarray = kernel, plus: np.ndarray = bias_out) -> np.ndarray:
        return mixed @ by + plus

    def parted(by: np.ndarray = joint, plus: np.ndarray = bias_in) -> list[np.ndarray]:
        return np.split(x @ by + plus, 3, -1)

    base = _base(parted(), heads, y, finished)
    if base is None:
        return
    causal = base
    mixed = attended(parted(), heads, causal=causal)
    yield "reads the matrix of its output transposed", finished(mixed, kernel.T)
    yield "leaves out the bias of its output", finished(mixed, plus=np.zeros(()))
    yield (
        "leaves out the biases of queries, keys and values",
        finished(attended(parted(plus=np.zeros(())), heads, causal=causal)),
    )
    squares = np.split(joint, 3, -1)
    yield (
        "reads the matrices of queries, keys and values transposed",
        finished(attended(parted(np.concatenate([it.T for it in squares], -1)), heads, causal=causal)),
    )
    yield (
        "reads queries, keys and values head by head",
        finished(attended(_by_head(x @ joint + bias_in, heads), heads, causal=causal)),
    )
    for words, other in _mixed(parted(), heads, causal=causal):
        yield words, finished(other)


def between(parts: list[np.ndarray], y: np.ndarray, heads: int, target: np.ndarray) -> Iterator[Told]:
    """What is computed of queries, keys and values, before the output product.

    Args:
        parts: (B, N, D) each; or one array (B, N, 3 D).
        y: (B, N, D), what A makes of them.
        heads: number of them.
        target: (B, N, D), what B does.
    """
    joint = parts[0] if len(parts) == 1 else None
    split = np.split(joint, 3, -1) if joint is not None else parts
    if any(it.shape != y.shape for it in split) or y.shape[-1] % heads:
        return
    causal = _base(split, heads, y, lambda it: it)
    if causal is None:
        return
    if joint is not None:
        yield "reads queries, keys and values head by head", attended(_by_head(joint, heads), heads, causal=causal)
    yield from _mixed(split, heads, causal=causal)
    yield from _scaled(split, heads, target, causal=causal)


def head_count(facts: Mapping[str, Any], width: int) -> int | None:
    """The number of heads among a module's attributes, for (B, N, ``width``)."""
    told = next((int(facts[name]) for name in _HEADS if isinstance(facts.get(name), int)), None)
    each = next((int(facts[name]) for name in _WIDTHS if isinstance(facts.get(name), int)), 0)
    return width // each if told is None and each and width % each == 0 else told


def attended(
    parts: Sequence[np.ndarray], heads: int, *, scale: float | None = None, causal: bool = False,
    over: int = -1, strided: bool = False, joined: bool = True
) -> np.ndarray:  # fmt: skip
    """Scaled dot-product attention in float64, (B, N, D) each.

    Args:
        parts: queries, keys and values.
        heads: how many.
        scale: of the products; 1 over the root of a head's width by default.
        causal: whether a token sees itself and those before it only.
        over: axis of the softmax.
        strided: whether a head is every so manieth channel instead of a run of channels.
        joined: whether heads are moved behind the tokens before they are joined.
    """
    batch, count, width = parts[0].shape

    def cut(x: np.ndarray) -> np.ndarray:  # (B, h, N, d)
        if strided:
            return x.reshape(batch, count, width // heads, heads).transpose(0, 3, 1, 2)
        return x.reshape(batch, count, heads, width // heads).transpose(0, 2, 1, 3)

    q, k, v = map(cut, parts)
    scores = q @ k.swapaxes(-1, -2) * ((width // heads) ** -0.5 if scale is None else scale)
    if causal:
        scores = np.where(np.tril(np.ones((count, count), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(over, keepdims=True))
    mixed = weights / weights.sum(over, keepdims=True) @ v
    if not joined:
        return mixed.reshape(batch, count, width)
    return (mixed.transpose(0, 2, 3, 1) if strided else mixed.transpose(0, 2, 1, 3)).reshape(batch, count, width)


def _mixed(parts: Sequence[np.ndarray], heads: int, *, causal: bool) -> Iterator[Told]:
    width = parts[0].shape[-1]
    for words, scale in _scales(width, heads).items():
        yield words, attended(parts, heads, scale=scale, causal=causal)
    named = dict(zip(("queries", "keys", "values"), parts, strict=True))
    for order in itertools.permutations(named):
        if order != tuple(named):
            yield (
                f"takes for queries, keys and values its {', '.join(order)}",
                attended([named[name] for name in order], heads, causal=causal),
            )
    yield (
        ("leaves out the causal mask" if causal else "masks later tokens"),
        attended(parts, heads, causal=not causal),
    )
    if not causal:
        yield "takes the softmax over queries instead of keys", attended(parts, heads, over=-2)
    yield "deals channels to heads one by one instead of in runs", attended(parts, heads, causal=causal, strided=True)
    yield "joins heads without moving them behind the tokens", attended(parts, heads, causal=causal, joined=False)
    for other in {1, 2, 3, 4, 6, 8, 12, 16} - {heads}:
        if width % other == 0:
            yield f"has {other} heads instead of {heads}", attended(parts, other, causal=causal)
            yield (
                f"has {other} heads instead of {heads}, and their old scale",
                attended(parts, other, causal=causal, scale=(width // heads) ** -0.5),
            )


def _scales(width: int, heads: int) -> dict[str, float]:
    """Usual mistakes in the factor of the scores."""
    return {"does not scale its scores": 1.0, "scales its scores by 1 / sqrt(D), not by that of a head": width**-0.5,
            "scales its scores by 1 / d instead of 1 / sqrt(d)": heads / width,
            "multiplies its scores by sqrt(d)": math.sqrt(width / heads),
            "scales its scores twice": heads / width}  # fmt: skip


def _scaled(parts: Sequence[np.ndarray], heads: int, target: np.ndarray, *, causal: bool) -> Iterator[Told]:
    """Any other factor of the scores, found by least squares."""
    from scipy.optimize import least_squares

    width = parts[0].shape[-1]
    own = (width // heads) ** -0.5
    named = (own, *_scales(width, heads).values())

    def off(power: np.ndarray) -> np.ndarray:
        return (attended(parts, heads, scale=own * float(np.exp(power[0])), causal=causal) - target).ravel()

    for start in (0.0, -1.0, 1.0):
        found = least_squares(off, [start], method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=40)
        scale = own * float(np.exp(found.x[0]))
        if all(abs(scale / other - 1) > 1e-6 for other in named):
            value = attended(parts, heads, scale=scale, causal=causal)
            yield f"scales its scores by {scale:.6g}, not by {own:.6g}", value


def _base(split: list[np.ndarray], heads: int, y: np.ndarray, finished: Any) -> bool | None:
    """Whether A's attention is causal; ``None`` if it is another one."""
    if y.shape[-1] % heads:
        return None
    return next(
        (it for it in (False, True) if relative(finished(attended(split, heads, causal=it)), y) < _AGREES), None
    )


def _by_head(joint: np.ndarray, heads: int) -> list[np.ndarray]:
    """Queries, keys and values of a product whose columns go head by head."""
    batch, count, width = joint.shape
    cut = joint.reshape(batch, count, heads, 3, width // 3 // heads)
    return [cut[:, :, :, at].reshape(batch, count, width // 3) for at in range(3)]


def _bias(arrays: Mapping[str, np.ndarray], name: str, size: int) -> np.ndarray:
    return arrays[name].astype(np.float64) if name in arrays else np.zeros(size)
