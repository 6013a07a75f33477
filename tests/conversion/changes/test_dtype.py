"""Weights in another floating-point type. Oracle: torch's casts, and counts by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from conversion import Checkpoint, TensorTable, with_dtype
from conversion.tensors.table import Tensor
from tests.conversion.canaries import ASYMMETRIC, canary_checkpoint
from tests.random_weights import random_params
from vit_spec import VitportError

CONFIG = ASYMMETRIC.replace(depth=1)
TYPES = ("float64", "float32", "float16", "bfloat16")


def _torch(array: np.ndarray) -> torch.Tensor:
    bits = np.ascontiguousarray(array)
    return torch.tensor(bits.view(np.int16)).view(torch.bfloat16) if array.dtype == "bfloat16" else torch.tensor(bits)


@pytest.mark.parametrize("source", TYPES)
@pytest.mark.parametrize("target", TYPES)
def test_every_cast_is_torchs_bit_for_bit(source, target) -> None:
    """Values from 1e-9 to 1e4, so that float16 rounds to subnormals and zero too."""
    params = random_params(CONFIG, seed=1)
    scale = np.logspace(-9, 4, num=len(params))
    tensors = {name: torch.tensor(array * by) for (name, array), by in zip(params.items(), scale, strict=True)}
    tensors = {name: tensor.to(getattr(torch, source)) for name, tensor in tensors.items()}
    before = Checkpoint.of(CONFIG, {name: _numpy(tensor) for name, tensor in tensors.items()})
    after = with_dtype(before, target)
    for name, tensor in tensors.items():
        assert after.params.spec(name) == (tuple(tensor.shape), after.params[name].dtype)
        assert torch.equal(_torch(after.params[name]), tensor.to(getattr(torch, target))), name
    if source == target:
        assert after is before
    else:
        assert after.provenance.notes == (f"changed: dtype {target} in place of {source}",)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    import ml_dtypes

    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def test_values_that_become_infinite_are_told_with_their_tensors() -> None:
    """float16 ends at 65504; 65520 is the first value that rounds beyond. An infinity in the file is not reported."""
    params = random_params(CONFIG, seed=1, dtype=np.float32)
    params["head.bias"][:5] = [65504, 65519, 65520, -1e30, np.inf]
    params["cls_token"][0, 0, :3] = [np.nan, 70000, 1]
    with warnings.catch_warnings(action="error"):
        after = with_dtype(Checkpoint.of(CONFIG, params), "float16")
        assert np.isinf(after.params["head.bias"]).sum() == 3
    assert after.provenance.notes[1:] == (
        "changed: values beyond 65504, the largest of float16, became infinite in cls_token (1), head.bias (2)",
    )
    assert len(with_dtype(Checkpoint.of(CONFIG, params), "bfloat16").provenance.notes) == 1


def test_tensors_are_cast_one_at_a_time_when_asked_for() -> None:
    reads: list[str] = []

    def lazily(name: str, array: np.ndarray) -> Tensor:
        return Tensor(array.shape, array.dtype, lambda: reads.append(name) or array)  # type: ignore[func-returns-value]

    table = TensorTable({name: lazily(name, array) for name, array in canary_checkpoint(CONFIG).params.items()})
    checkpoint = Checkpoint(CONFIG, canary_checkpoint(CONFIG).preprocessing, table)
    wider = with_dtype(checkpoint, "float64")
    assert reads == [], "no value can leave the range, so none is looked at"
    assert wider.params["cls_token"].dtype == np.float64
    assert reads == ["cls_token"]


def test_an_unknown_type_lists_the_known() -> None:
    with pytest.raises(VitportError, match="choose one of float32, float16, bfloat16, float64"):
        with_dtype(canary_checkpoint(CONFIG), "int8")  # type: ignore[arg-type]
