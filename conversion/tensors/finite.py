"""Values that are NaN or infinite: weights that are complete but useless."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conversion.tensors.table import Tensor, TensorTable


def count_not_finite(array: np.ndarray) -> int:
    """How many values are NaN or infinite."""
    if array.dtype.kind in "iub":
        return 0
    if array.dtype.kind == "f" and array.dtype.itemsize >= 4:
        # NaN and infinity always show in the sum, which needs one addition a value and no array of answers.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(array.sum()):
                return 0
    return int(array.size - np.isfinite(array).sum())


def not_finite(name: str, count: int) -> str:
    """The sentence that reports them."""
    return f"{name} holds {count} value{'s' if count > 1 else ''} that {'are' if count > 1 else 'is'} NaN or infinite"


def watched(table: TensorTable, found: dict[str, int]) -> TensorTable:
    """The same table; ``found`` receives each tensor's count of values that are not finite when it is first read."""

    def reader(name: str, tensor: Tensor) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            array = tensor.read()
            if name not in found:
                found[name] = count_not_finite(array)
            return array

        return read

    return TensorTable(
        {name: Tensor(tensor.shape, tensor.dtype, reader(name, tensor)) for name, tensor in table.tensors.items()}
    )
