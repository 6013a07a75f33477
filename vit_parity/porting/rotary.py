"""What attention with rotary positions may do instead: which channels turn together, which way, and how far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vit_parity.bound import relative
from vit_parity.porting.attention import attended

Told = tuple[str, np.ndarray]
_AGREES = 1e-6
_BASES = (100.0, 1e3, 1e4, 1e5, 5e5, 1e6, 1e7)


@dataclass(frozen=True)
class _Turned:
    """Attention whose queries and keys are turned first."""

    heads: int
    angles: np.ndarray
    """(N, d / 2), in radians."""
    pairs: bool
    """Whether neighbouring channels turn together, and not those half a head apart."""
    causal: bool
    queries: bool = True
    keys: bool = True
    tiled: bool = False
    """Whether fewer heads of keys and values are dealt to queries in turns."""
    scale: float | None = None

    def of(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The result, (B, N, D); keys and values may have fewer heads."""
        q = self._turn(q) if self.queries else q
        k = self._turn(k) if self.keys else k
        return attended(
            (q, *(spread(it, q.shape[-1], self.heads, tiled=self.tiled) for it in (k, v))),
            self.heads, scale=self.scale, causal=self.causal,
        )  # fmt: skip

    def _turn(self, x: np.ndarray) -> np.ndarray:
        cut = x.reshape(*x.shape[:2], -1, 2 * self.angles.shape[-1])
        cos, sin = (function(self.angles)[:, None] for function in (np.cos, np.sin))
        half = cut.shape[-1] // 2
        first, second = (cut[..., ::2], cut[..., 1::2]) if self.pairs else (cut[..., :half], cut[..., half:])
        turned = first * cos - second * sin, second * cos + first * sin
        return (np.stack(turned, -1) if self.pairs else np.concatenate(turned, -1)).reshape(x.shape)


def spread(x: np.ndarray, width: int, heads: int, *, tiled: bool = False) -> np.ndarray:
    """Fewer heads of keys or values, one for each head of queries; (B, N, D)."""
    cut = x.reshape(*x.shape[:2], -1, width // heads)
    times = heads // cut.shape[2]
    wide = np.tile(cut, (1, 1, times, 1)) if tiled else np.repeat(cut, times, 2)
    return wide.reshape(*x.shape[:2], width)


def turned(parts: list[np.ndarray], tables: tuple[np.ndarray, np.ndarray], y: np.ndarray, heads: int) -> Iterator[Told]:
    """Other rotary positions, where A's are those of its tables.

    Args:
        parts: queries, keys and values before they are turned, (B, N, D).
        tables: cosines and sines, (N, d).
        y: what A computes of them.
        heads: of the queries.
    """
    cos, sin = tables
    head = y.shape[-1] // heads
    if cos.shape[-1] != head:
        return
    base = next(
        (it for pairs in (False, True) for causal in (True, False) if relative(
            (it := _Turned(heads, _angles(cos, sin, pairs=pairs), pairs, causal)).of(*parts), y) < _AGREES), None
    )  # fmt: skip
    if base is None:
        return
    channels = {False: "halves", True: "neighbouring channels"}
    changes = {
        f"turns pairs of {channels[not base.pairs]}, not of {channels[base.pairs]}": replace(
            base, pairs=not base.pairs
        ),
        "turns the other way": replace(base, angles=-base.angles),
        "does not turn its keys": replace(base, keys=False),
        "does not turn its queries": replace(base, queries=False),
        "leaves out the rotary positions": replace(base, keys=False, queries=False),
        "leaves out the causal mask" if base.causal else "masks later tokens": replace(base, causal=not base.causal),
        "deals keys and values to queries in turns (tiled, not repeated)": replace(base, tiled=True),
        "does not scale its scores": replace(base, scale=1.0),
        "scales its scores by 1 / sqrt(D), not by that of a head": replace(base, scale=y.shape[-1] ** -0.5),
        "scales its scores by 1 / d instead of 1 / sqrt(d)": replace(base, scale=1 / head),
    }
    half = head // 2
    step = base.angles[1] - base.angles[0] if len(base.angles) > 1 else np.zeros(half)
    own = float(step[1] ** -half) if half > 1 and 0 < step[1] < 1 else 0.0
    for other in _BASES:
        if own and abs(other / own - 1) > 0.01:
            angles = base.angles[:1] + np.arange(len(base.angles))[:, None] * other ** (-np.arange(half) / half)
            changes[f"turns by other angles: base {other:g}, not {own:g}"] = replace(base, angles=angles)
    for words, attention in changes.items():
        yield words, attention.of(*parts)


def _angles(cos: np.ndarray, sin: np.ndarray, *, pairs: bool) -> np.ndarray:
    """(N, d / 2), continued from token to token."""
    half = cos.shape[-1] // 2
    taken = slice(0, None, 2) if pairs and not np.array_equal(cos[:, :half], cos[:, half:]) else slice(0, half)
    return np.unwrap(np.arctan2(sin[:, taken], cos[:, taken]), axis=0)
