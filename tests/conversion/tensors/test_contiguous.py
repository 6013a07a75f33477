"""Transposed views copied into contiguous arrays. Oracle: numpy's ``ascontiguousarray`` and ``concatenate``."""

from __future__ import annotations

import contextlib
import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.tensors import buffers
from conversion.tensors.contiguous import concatenate, contiguous


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


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 70), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=4),
    st.sampled_from([np.float32, np.float64, ml_dtypes.bfloat16, np.int8]),
    st.booleans(),
)
def test_stacked_views_are_what_numpy_makes_of_them(
    rest: list[int], parts: list[tuple[int, bool]], dtype: type, kept: bool
) -> None:
    """Parts of several lengths, transposed or not, in new memory and in memory that was used before."""
    rng = np.random.default_rng(sum(rest))
    arrays: list[np.ndarray] = []
    for length, transposed in parts:
        shape = (length, *rest)
        whole = rng.integers(0, 100, shape[::-1] if transposed else shape).astype(dtype)
        arrays.append(whole.T if transposed else whole)
    expected = np.concatenate(arrays)
    with buffers.kept() if kept else contextlib.nullcontext():
        for _ in range(2):
            result = concatenate(arrays)
            assert result.flags.c_contiguous
            assert result.dtype == expected.dtype
            assert result.shape == expected.shape
            assert result.tobytes() == expected.tobytes()
            result[...] = 0  # what lies in the memory that is used next


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 3), (2, 1)), ((2,), (2, 1)), ((), ())])
def test_what_does_not_go_behind_each_other_is_refused_and_never_spread(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="cannot be concatenated"):
        concatenate([np.zeros(shape) for shape in shapes])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_large_transposed_matrices_are_right_in_memory_that_is_used_again(dtype: type) -> None:
    """Above the size from which memory is kept; rows and columns that are not multiples of a panel."""
    matrices = [np.random.default_rng(at).normal(size=(517, 389)).astype(dtype) for at in range(3)]
    with buffers.kept():
        for matrix in matrices * 2:
            assert (contiguous(matrix.T) == matrix.T).all()
