"""From a file's arrays to layers, in PyTorch's axes and in JAX's."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from conversion.second_reading import Candidates
from conversion.tensors.table import Tensor, TensorTable
from vit_parity.semantics.layers import Linear, Norm
from vit_spec import VitportError


@dataclass(frozen=True)
class TorchReader:
    """Weights (out, in) and (out, in, height, width), under ``NAME.weight`` or, in torch's attention, ``NAME_weight``.

    Args:
        arrays: the file's names → arrays of any float dtype.
        dtype: rounds the arrays to this type first; ``None`` leaves them as they are.
        channels_last: whether a patch embedding stored as a linear layer reads pixels by row, column and channel.
    """

    arrays: TensorTable
    dtype: np.dtype | None = None
    channels_last: bool = False

    def array(self, names: Candidates) -> np.ndarray | None:
        """The first of some arrays that exists, in float64."""
        for name in names:
            if self._key(name) in self.arrays:
                array = self.arrays[self._key(name)]
                return (array if self.dtype is None else array.astype(self.dtype)).astype(np.float64)
        return None

    def linear(self, names: Candidates) -> Linear | None:
        """The first of some linear layers that exists."""
        for name in names:
            if (kernel := self.array(self._leaf(name, "weight"))) is not None:
                return Linear(self._kernel(name, kernel), self._bias(name))
        return None

    def convolution(self, names: Candidates) -> Linear | None:
        """The patch embedding as a linear layer on patches flattened from (height, width, channel)."""
        for name in names:
            if (kernel := self.array(self._leaf(name, "weight"))) is not None:
                if kernel.ndim == 5:  # of videos, which see an image as equal frames; rounded as the file's numbers are
                    key = next(leaf for leaf in self._leaf(name, "weight") if self._key(leaf) in self.arrays)
                    kernel = kernel.sum(axis=2).astype(self.arrays.spec(self._key(key))[1]).astype(np.float64)
                return Linear(self._patches(kernel), self._bias(name))
        return None

    def norm(self, names: Candidates, eps: float, centred: bool) -> Norm | None:
        """The first of some norms that exists."""
        for name in names:
            if (scale := self.array(self._leaf(name, self._scale))) is not None and scale.ndim == 1:
                return Norm(scale, self._bias(name), eps, centred)
        return None

    def heads(self, names: Candidates) -> int | None:
        """The number of heads, if a layer's axes show it."""
        del names
        return None

    _scale = "weight"

    def _key(self, name: str) -> str:
        return name

    def _leaf(self, name: str, leaf: str) -> Candidates:
        return f"{name}.{leaf}", f"{name}_{leaf}"

    def _bias(self, name: str) -> np.ndarray | None:
        bias = self.array(self._leaf(name, "bias"))
        return None if bias is None else bias.reshape(-1)

    def _kernel(self, name: str, weight: np.ndarray) -> np.ndarray:
        del name
        return weight.T

    def _patches(self, weight: np.ndarray) -> np.ndarray:
        if weight.ndim == 2 and self.channels_last:
            return weight.T
        if weight.ndim == 2:  # for square colour patches flattened from (channel, height, width)
            side = round((weight.shape[1] / 3) ** 0.5)
            weight = weight.reshape(-1, 3, side, side)
        return np.moveaxis(weight, 0, -1).transpose(1, 2, 0, 3).reshape(-1, weight.shape[0])


@dataclass(frozen=True)
class JaxReader(TorchReader):
    """Kernels (in, out) and (height, width, in, out) under ``NAME/kernel``, factors of norms under ``NAME/scale``.

    Google's attention has an axis for heads: kernels are (D, h, d) before attention and (h, d, D) after it.
    """

    _scale = "scale"

    def heads(self, names: Candidates) -> int | None:
        for name in names:
            if (key := self._key(f"{name}.kernel")) in self.arrays:
                shape, _ = self.arrays.spec(key)
                return shape[1] if len(shape) == 3 else None
        return None

    def _key(self, name: str) -> str:
        return name.replace(".", "/")

    def _leaf(self, name: str, leaf: str) -> Candidates:
        return (f"{name}.{ {'weight': 'kernel'}.get(leaf, leaf) }",)

    def _kernel(self, name: str, weight: np.ndarray) -> np.ndarray:
        if weight.ndim == 3:
            return weight.reshape(-1, weight.shape[2]) if name.endswith("out") else weight.reshape(len(weight), -1)
        return weight

    def _patches(self, weight: np.ndarray) -> np.ndarray:
        return weight.reshape(-1, weight.shape[-1])


def separate_blocks(table: TensorTable, template: str) -> tuple[TensorTable, str]:
    """A table in which each block has arrays of its own, and the template of its blocks' names.

    Args:
        table: the file's names → arrays.
        template: as :class:`conversion.second_reading.vit.PartNames` has it for blocks: with ``{chunk}`` where they lie
            in chunks, without ``{i}`` where arrays hold all blocks, stacked on axis 0.
    """
    if "{chunk}" in template:
        before, _, after = template.partition("{chunk}.")
        chunk = re.compile(rf"^{re.escape(before)}\d+\.(?=\d+\.)")
        return table.renamed(lambda name: chunk.sub(before, name)), before + after
    if "{i}" in template:
        return table, template
    tensors: dict[str, Tensor] = {}
    for name, tensor in table.tensors.items():
        if not name.startswith(f"{template}/"):
            tensors[name] = tensor
            continue
        for at in range(tensor.shape[0]):
            own = name.replace(template, f"{template}/{at}", 1)
            tensors[own] = Tensor(tensor.shape[1:], tensor.dtype, lambda tensor=tensor, at=at: tensor.read()[at])
    return TensorTable(tensors), template + "/{i}"


def needed(part: Linear | None, names: Candidates) -> Linear:
    """The layer.

    Raises:
        VitportError: if it is ``None``, with the names that were looked for.
    """
    if part is None:
        raise VitportError(f"The file has none of {', '.join(names)}: it cannot be run by its own names.")
    return part
