"""A Swin Transformer made of the parts that a file names, run in float64.

Written from the papers (Liu et al. 2021 and 2022); inside, tokens are maps (B, rows, columns, C).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import numpy as np

from conversion.second_reading import Candidates
from conversion.second_reading.swin import SwinPartNames
from vit_parity.capture import Activations
from vit_parity.semantics.layers import ACTIVATIONS, Layer, Linear, same, softmax
from vit_parity.semantics.readers import TorchReader, needed

_ROUNDED = 2e-3
"""Four roundings of the largest coordinate, about 1.1, in float16."""
_NUMBER = re.compile(r"\{(\d*)([sb])([+-]\d+)?\}")


@dataclass(frozen=True)
class SwinFacts:
    """Facts that no array shows."""

    version: int
    windows: tuple[tuple[int, int], ...]
    """Of each stage, before they shrink."""
    pretrained: tuple[tuple[int, int], ...]
    """0 for the window's own sides."""
    shrinks: str
    """As :class:`conversion.second_reading.swin.SwinReading` says it."""
    pads: str
    margin: str
    unfolds: bool
    eps: float
    inner_eps: float
    activation: str


@dataclass(frozen=True)
class Windows:
    """How one stage's map is cut."""

    window: tuple[int, int]
    shift: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int], window: tuple[int, int], shrinks: str) -> Windows:
        """What a family's code makes of a window on a map of ``size``."""
        half = (window[0] // 2, window[1] // 2)
        if shrinks in ("min", "height"):
            least = min(size) if shrinks == "min" else size[0]
            return cls((least, least), (0, 0)) if least <= window[0] else cls(window, half)
        if shrinks == "never":
            return cls(window, half)
        still = [side <= own for side, own in zip(size, window, strict=True)]
        shift = (half[0] * (not still[0]), half[1] * (not still[1]))
        if shrinks == "pad":
            return cls(window, shift)
        return cls((min(window[0], size[0]), min(window[1], size[1])), shift)


class SwinSemantics:
    """One model as its file's own names describe it. Each block is read when it runs."""

    def __init__(self, reader: TorchReader, names: SwinPartNames, facts: SwinFacts) -> None:
        self.reader = reader
        self.names = names
        self.facts = facts
        self.act = ACTIVATIONS[facts.activation]

    def run(self, images: np.ndarray) -> Activations:
        """(B, H, W, C) -> ``embed``, ``layers.s.blocks.b``, ``layers.s.downsample``, ``stage_norms.s``, ``norm`` and
        ``head``, in float64. All but the last, (B, K), are tokens (B, N, D), row by row.
        """
        x = self._embed(images.astype(np.float64))
        found = {"embed": x}
        for stage, window in enumerate(self.facts.windows):
            if stage:
                x = found[f"layers.{stage}.downsample"] = self._merge(x, stage)
            cut = Windows.of((x.shape[1], x.shape[2]), window, self.facts.shrinks)
            block = 0
            while self._has_block(stage, block):
                here = cut if block % 2 else replace(cut, shift=(0, 0))
                x = found[f"layers.{stage}.blocks.{block}"] = self._block(x, stage, block, here)
                block += 1
            if (norm := self.reader.norm(filled(self.names.stage_norm, stage), self.facts.eps, True)) is not None:
                found[f"stage_norms.{stage}"] = norm(x)
        last = f"stage_norms.{len(self.facts.windows) - 1}"
        x = found["norm"] = found.pop(last) if last in found else self._norm(self.names.norm, self.facts.eps)(x)
        y = x.mean(axis=(1, 2))
        head = self.reader.linear(self.names.head)
        found["head"] = y if head is None else head(y)
        return {name: array.reshape(len(array), -1, array.shape[-1]) if array.ndim == 4 else array
                for name, array in found.items()}  # fmt: skip

    def _embed(self, images: np.ndarray) -> np.ndarray:
        n, r = self.names, self.reader
        patches = needed(r.convolution(n.patches), n.patches)
        side = round((patches.kernel.shape[0] / images.shape[-1]) ** 0.5)
        images = _whole_patches(images, side, self.facts.margin)
        B, H, W, C = images.shape
        cut = images.reshape(B, H // side, side, W // side, side, C).transpose(0, 1, 3, 2, 4, 5)
        x = patches(cut.reshape(B, H // side, W // side, -1))
        x = self._norm(n.patch_norm, self.facts.inner_eps)(x)
        if (table := r.array(n.positions)) is not None:
            rows = table[0].reshape(table.shape[1], -1).T if table.ndim == 4 else table[0]
            x = x + rows.reshape(x.shape[1:])
        return x

    def _merge(self, x: np.ndarray, stage: int) -> np.ndarray:
        x = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        corner = {(row, column): x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)}
        if self.facts.unfolds:
            order = [corner[0, 0], corner[0, 1], corner[1, 0], corner[1, 1]]
            y = np.stack(order, axis=-1).reshape(*corner[0, 0].shape[:3], -1)
        else:
            y = np.concatenate([corner[0, 0], corner[1, 0], corner[0, 1], corner[1, 1]], axis=-1)
        names = filled(self.names.merge, stage)
        reduction = needed(self.reader.linear(names), names)
        norm = self._norm(filled(self.names.merge_norm, stage), self.facts.inner_eps)
        return reduction(norm(y)) if self.facts.version == 1 else norm(reduction(y))

    def _has_block(self, stage: int, block: int) -> bool:
        names = self._at(stage, block, self.names.norm1)
        return self.reader.norm(names, self.facts.eps, True) is not None

    def _block(self, x: np.ndarray, stage: int, block: int, cut: Windows) -> np.ndarray:
        n = self.names
        norm1, norm2 = (self._norm(self._at(stage, block, names), self.facts.eps) for names in (n.norm1, n.norm2))
        first, second = (self._linear(stage, block, names) for names in (n.first, n.second))
        if self.facts.version == 1:
            x = x + self._attention(norm1(x), stage, block, cut)
            return x + second(self.act(first(norm2(x))))
        x = x + norm1(self._attention(x, stage, block, cut))
        return x + norm2(second(self.act(first(x))))

    def _attention(self, x: np.ndarray, stage: int, block: int, cut: Windows) -> np.ndarray:
        """Attention within windows: (B, rows, columns, D) -> the same."""
        (rows, columns), (height, width) = x.shape[1:3], cut.window
        border = ((0, 0), (0, -rows % height), (0, -columns % width), (0, 0))
        back = tuple(-shift for shift in cut.shift)
        if self.facts.pads == "pad_roll":
            x = np.roll(np.pad(x, border), back, (1, 2))
        else:
            x = np.pad(np.roll(x, back, (1, 2)), border)
        B, H, W, D = x.shape
        y = x.reshape(B, H // height, height, W // width, width, D).transpose(0, 1, 3, 2, 4, 5)
        y = self._attend(y.reshape(B, -1, height * width, D), stage, block, cut, (H, W))
        y = y.reshape(B, H // height, W // width, height, width, D).transpose(0, 1, 3, 2, 4, 5).reshape(B, H, W, D)
        if self.facts.pads == "pad_roll":
            return np.roll(y, cut.shift, (1, 2))[:, :rows, :columns]
        return np.roll(y[:, :rows, :columns], cut.shift, (1, 2))

    def _attend(self, x: np.ndarray, stage: int, block: int, cut: Windows, size: tuple[int, int]) -> np.ndarray:
        """(B, windows, tokens, D) -> the same."""
        bias, scale = self._bias(stage, block, cut.window)  # (h, tokens, tokens); (h, 1, 1) in version 2
        heads = len(bias)
        q, k, v = (
            layer(x).reshape(*x.shape[:3], heads, -1).transpose(0, 1, 3, 2, 4) for layer in self._qkv(stage, block)
        )
        if scale is None:
            q = q * q.shape[-1] ** -0.5
        else:
            q, k = (each / np.maximum(np.linalg.norm(each, axis=-1, keepdims=True), 1e-12) for each in (q, k))
            q = q * np.exp(np.minimum(scale, math.log(100.0)))
        logits = q @ k.swapaxes(-1, -2) + bias + _mask(size, cut)[:, None]
        y = (softmax(logits) @ v).transpose(0, 1, 3, 2, 4).reshape(x.shape)
        return self._linear(stage, block, self.names.out)(y)

    def _qkv(self, stage: int, block: int) -> list[Linear]:
        n, r = self.names, self.reader
        together = self._at(stage, block, n.qkv)
        if (joint := r.linear(together)) is not None:
            width = joint.kernel.shape[1] // 3
            parts = joint.split([width] * 3)
        else:
            parts = [self._linear(stage, block, names) for names in (n.query, n.key, n.value)]
        if self.facts.version == 2:
            query, key, value = parts
            bias = [r.array(self._at(stage, block, names)) for names in (n.query_bias, n.value_bias)]
            parts = [
                Linear(query.kernel, query.bias if bias[0] is None else bias[0]),
                Linear(key.kernel),  # keys have none, whatever a file holds
                Linear(value.kernel, value.bias if bias[1] is None else bias[1]),
            ]
        return parts

    def _bias(self, stage: int, block: int, window: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Bias of the logits (h, tokens, tokens), and version 2's scale (h, 1, 1)."""
        height, width = window
        y, x = (axis.reshape(-1) for axis in np.mgrid[:height, :width])
        dy = y[:, None] - y + height - 1  # query minus key, from 0
        dx = x[:, None] - x + width - 1
        if self.facts.version == 1:
            names = self._at(stage, block, self.names.table)
            table = self._array(names).reshape(2 * height - 1, 2 * width - 1, -1)
            return table[dy, dx].transpose(2, 0, 1), None
        where = self._at(stage, block, self.names.coordinates)
        stored = self.reader.array(where)
        if stored is None:
            grid = _coordinates(window, self.facts.pretrained[stage])
        else:
            grid = _unrounded(stored.reshape(2 * height - 1, 2 * width - 1, 2), window)
        n = self.names
        hidden = np.maximum(self._linear(stage, block, n.bias_first)(grid.reshape(2 * height - 1, 2 * width - 1, 2)), 0)
        table = self._linear(stage, block, n.bias_second)(hidden)  # (offsets down, offsets across, h)
        scale = self._array(self._at(stage, block, n.logit_scale)).reshape(-1, 1, 1)
        return 16.0 / (1.0 + np.exp(-table[dy, dx].transpose(2, 0, 1))), scale

    def _array(self, names: Candidates) -> np.ndarray:
        array = self.reader.array(names)
        if array is None:
            needed(None, names)
        assert array is not None
        return array

    def _linear(self, stage: int, block: int, names: Candidates) -> Linear:
        there = self._at(stage, block, names)
        return needed(self.reader.linear(there), there)

    def _norm(self, names: Candidates, eps: float) -> Layer:
        return self.reader.norm(names, eps, True) or same

    def _at(self, stage: int, block: int, names: Candidates) -> Candidates:
        return tuple(f"{at}.{name}" for at in filled(self.names.block, stage, block) for name in names)


def _whole_patches(images: np.ndarray, side: int, margin: str) -> np.ndarray:
    """Pixels that fill no patch completed by zeros, or dropped."""
    H, W = images.shape[1:3]
    if margin == "drop":
        return images[:, : H - H % side, : W - W % side]
    return np.pad(images, ((0, 0), (0, -H % side), (0, -W % side), (0, 0)))


def filled(names: Candidates, stage: int, block: int = 0) -> Candidates:
    """Names with the numbers of a stage and a block in their places."""
    numbers = {"s": stage, "b": block}
    return tuple(
        _NUMBER.sub(lambda found: str(int(found[1] or 1) * numbers[found[2]] + int(found[3] or 0)), name)
        for name in names
    )


def _mask(size: tuple[int, int], cut: Windows) -> np.ndarray:
    """(windows, tokens, tokens): -100 where query and key lie side by side only because the map was rolled."""
    (H, W), (height, width) = size, cut.window

    def parts(side: int, window: int, shift: int) -> np.ndarray:
        """A number for each position of an axis, the same in parts that were neighbours before."""
        part = np.zeros(side, int)
        if shift:
            part[-window:] = 1
            part[-shift:] = 2
        return part

    region = 3 * parts(H, height, cut.shift[0])[:, None] + parts(W, width, cut.shift[1])  # (H, W)
    region = region.reshape(H // height, height, W // width, width).transpose(0, 2, 1, 3).reshape(-1, height * width)
    return np.where(region[:, :, None] == region[:, None], 0.0, -100.0)


def _unrounded(stored: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """The exact coordinates that a buffer holds to the precision of its dtype; the buffer itself if it holds others."""
    largest = (stored[-1, 0, 0], stored[0, -1, 1])
    if not all(np.isfinite(top) and top > 0 for top in largest):  # a window of 1
        return _coordinates(window, (0, 0))
    height, width = (
        round(1 + 8 * (side - 1) / (2 ** (3 * top) - 1)) for side, top in zip(window, largest, strict=True)
    )
    exact = _coordinates(window, (height, width))
    return exact if np.abs(exact - stored).max() < _ROUNDED else stored


def _coordinates(window: tuple[int, int], pretrained: tuple[int, int]) -> np.ndarray:
    """(2 height - 1, 2 width - 1, 2): Liu et al. 2022, equation 4, with offsets scaled to [-8, 8]."""

    def axis(side: int, reference: int) -> np.ndarray:
        offset = np.arange(1.0 - side, side)
        scaled = 8.0 * offset / max((reference if reference else side) - 1, 1)
        return np.sign(scaled) * np.log2(1.0 + np.abs(scaled)) / 3.0

    down, across = (axis(*each) for each in zip(window, pretrained, strict=True))
    return np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1)
