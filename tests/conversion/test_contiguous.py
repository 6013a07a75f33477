"""Transposed views laid out anew. Oracle: numpy's ``ascontiguousarray``."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.contiguous import contiguous


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=0, max_size=4),
    st.data(),
    st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]),
)
def test_any_view_is_what_numpy_makes_of_it(shape: list[int], data: st.DataObject, dtype: type) -> None:
    """Axes in any order, steps of any sign, axes split and of length one."""
    array = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape).astype(dtype)
    view = array.transpose(data.draw(st.permutations(range(array.ndim))))
    view = view[tuple(slice(None, None, data.draw(st.sampled_from([1, 1, 2, -1]))) for _ in view.shape)]
    result = contiguous(view)
    assert result.flags.c_contiguous
    assert result.dtype == view.dtype
    assert result.shape == view.shape
    assert result.tobytes() == view.tobytes()


@pytest.mark.parametrize(("rows", "columns"), [(300, 65), (64, 1), (1, 200), (129, 128)])
def test_matrices_of_more_than_a_panel_and_kernels_of_heads_are_right(rows: int, columns: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(rows, columns * 6)).astype(np.float32)
    for view in (matrix.T, matrix.T.reshape(columns, 6, rows), matrix.T.reshape(2, 3, columns, rows)):
        assert (contiguous(view) == view).all()
        assert contiguous(view).flags.c_contiguous


def test_what_lies_right_is_not_copied() -> None:
    array = np.ones((3, 4))
    assert contiguous(array) is array


def test_a_broadcast_scalar_is_laid_out() -> None:
    for shape in itertools.permutations((2, 3, 1)):
        view = np.broadcast_to(np.float32(3), shape)
        assert contiguous(view).tobytes() == view.tobytes()
