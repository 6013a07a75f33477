"""How arrays change between a format and the canonical layout: one small class for each transform, both ways."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from conversion.tensors.contiguous import concatenate
from vit_spec import Config, Kind, VitportError


class Transform(Protocol):
    """How the arrays of a rule change; the two methods undo each other bit for bit."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """From the format's arrays, in the order of ``Rule.foreign``, to those of ``Rule.canonical``."""
        ...

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Any) -> list[np.ndarray]:
        """The inverse; the config supplies what canonical shapes do not show, such as the number of heads."""
        ...


@dataclass(frozen=True)
class Copy:
    """The array as it is."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(arrays)

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return list(arrays)


@dataclass(frozen=True)
class Axes:
    """Axes in another order: canonical axis ``k`` is the format's axis ``order[k]``."""

    order: tuple[int, ...]

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [array.transpose(self.order) for array in arrays]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return [array.transpose(np.argsort(self.order)) for array in arrays]


@dataclass(frozen=True)
class Joined:
    """The format holds equal parts of canonical axis 0 as separate arrays (query, key, value)."""

    parts: int

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [concatenate(arrays)]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return np.split(arrays[0], self.parts)


@dataclass(frozen=True)
class Divided:
    """The format holds several canonical arrays as one, in parts of these relative sizes on axis 0."""

    parts: tuple[int, ...]

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        unit, rest = divmod(len(arrays[0]), sum(self.parts))
        if rest:
            raise ValueError(f"{len(arrays[0])} rows do not divide into {sum(self.parts)} parts")
        return np.split(arrays[0], np.cumsum(self.parts[:-1]) * unit)

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return [concatenate(arrays)]


@dataclass(frozen=True)
class Beside:
    """The format holds two linear layers, whose outputs are added, as one: (D, D) and (D, M) as (D, D + M)."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        width = len(arrays[0])
        return [arrays[0][:, :width], arrays[0][:, width:]]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return [np.concatenate(arrays, axis=1)]


@dataclass(frozen=True)
class Sum:
    """The format holds the sum of two biases, of which the second becomes zeros."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [arrays[0], np.zeros_like(arrays[0])]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return [(arrays[0] + arrays[1]).astype(arrays[0].dtype)]


@dataclass(frozen=True)
class Leading:
    """The canonical array has this many extra leading axes of length 1."""

    axes: int

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [array.reshape((1,) * self.axes + array.shape) for array in arrays]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return [array.reshape(array.shape[self.axes :]) for array in arrays]


@dataclass(frozen=True)
class WithoutBias:
    """The format's linear layer has no bias; the canonical one has a bias of zeros."""

    what: str
    """What the layer is, in words."""
    transposed: bool = False
    """The format holds the weight as (in, out)."""
    remedy: str = ""
    """An option that leaves the layer out, if there is one."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        weight = arrays[0].T if self.transposed else arrays[0]
        return [weight, np.zeros(len(weight), weight.dtype)]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        weight, bias = arrays
        if bias.any():
            raise VitportError(
                f"The {self.what} has a bias other than zero, for which the format has no place: choose another "
                f"format, such as timm{', or add ' + self.remedy if self.remedy else ''}."
            )
        return [weight.T if self.transposed else weight]


@dataclass(frozen=True)
class LinearPatches:
    """A patch embedding of three channels that was stored as a linear layer: (D, 3·P·P), channel first."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (weight,) = arrays
        if weight.ndim != 2:
            return [weight]
        side = math.isqrt(weight.shape[1] // 3)
        if 3 * side * side != weight.shape[1]:
            raise ValueError(f"{weight.shape[1]} columns are not three channels of a square patch")
        return [weight.reshape(len(weight), 3, side, side)]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return list(arrays)


@dataclass(frozen=True)
class Frames:
    """A patch embedding of videos, (D, C, T, P, P), that sees an image as T equal frames."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (weight,) = arrays
        return [weight.sum(axis=2, dtype=np.float64).astype(weight.dtype)]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return [np.stack([array / 2, array / 2], axis=2) for array in arrays]


@dataclass(frozen=True)
class PixelRows:
    """A patch embedding that is a linear layer on pixels by row, column and channel: (D, P·P·C), for C of 3 or 1."""

    or_convolution: bool = False
    """Whether files may hold a convolution, (D, C, P, P), instead, and one is written."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (weight,) = arrays
        if self.or_convolution and weight.ndim == 4:
            return [weight]
        for channels in (3, 1):
            side = math.isqrt(weight.shape[-1] // channels)
            if weight.ndim == 2 and channels * side * side == weight.shape[1]:
                return [weight.reshape(len(weight), side, side, channels).transpose(0, 3, 1, 2)]
        raise ValueError(
            f"{weight.shape[-1]} columns are not the pixels of a square patch of three channels, or of one"
        )

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        if self.or_convolution:
            return list(arrays)
        return [array.transpose(0, 2, 3, 1).reshape(len(array), -1) for array in arrays]


@dataclass(frozen=True)
class Unbatched:
    """The format's array has no leading axis of length 1; older files of it may have one."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [array[None] if array.ndim == 2 else array for array in arrays]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return [array[0] for array in arrays]


COPY = Copy()
LAYOUT = {Kind.LINEAR: Axes((1, 0)), Kind.CONV: Axes((3, 2, 0, 1))}
"""From JAX's axes to PyTorch's: (in, out) → (out, in), and HWIO → OIHW. Other kinds have the same axes."""
