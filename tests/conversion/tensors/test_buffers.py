"""Memory that is used again. Oracle: the values that arrays still in use were given, and addresses."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from conversion.tensors import buffers

SIZE = 1 << 17
FLOAT = np.dtype(np.float32)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_the_last_view_of_it_is_gone_and_not_before() -> None:
    with buffers.kept():
        first = buffers.empty((SIZE,), FLOAT)
        first[:] = 7
        where, view = address(first), first.reshape(2, -1).T[1:]
        del first
        second = buffers.empty((SIZE,), FLOAT)
        second[:] = 8
        assert address(second) != where
        assert (view == 7).all()
        del view
        assert address(buffers.empty((2, SIZE // 2), FLOAT)) == where


def test_nothing_is_kept_when_nobody_asks_for_it() -> None:
    array = buffers.empty((SIZE,), FLOAT)
    with buffers.kept():
        other = buffers.empty((SIZE,), FLOAT)
        with buffers.kept():
            del other
        assert buffers._spare
    assert not buffers._spare
    del array
    assert not buffers._spare


def test_an_array_that_outlives_the_keeping_stays_whole() -> None:
    with buffers.kept():
        array = buffers.empty((SIZE,), FLOAT)
        array[:] = 3
    with buffers.kept():
        others = [buffers.empty((SIZE,), FLOAT) for _ in range(4)]
        for other in others:
            other[:] = 5
        assert (array == 3).all()
        del array
        gc.collect()
        assert sum(map(len, buffers._spare.values())) == 1


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_MOST", 3 * SIZE)
    with buffers.kept():
        arrays = [buffers.empty((SIZE,), np.dtype(np.uint8)) for _ in range(9)]
        del arrays
        assert sum(size * len(pieces) for size, pieces in buffers._spare.items()) == 3 * SIZE


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (300, 70, 3), (1 << 20,)])
@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, ">f8"])
def test_arrays_have_the_shape_and_dtype_asked_for_and_can_be_written(shape: tuple[int, ...], dtype: type) -> None:
    with buffers.kept():
        for _ in range(2):
            array = buffers.empty(shape, np.dtype(dtype))
            assert array.shape == shape
            assert array.dtype == np.dtype(dtype)
            assert array.flags.c_contiguous
            array[...] = 1


def test_threads_never_share_a_piece() -> None:
    def run(number: int) -> bool:
        for _ in range(200):
            array = buffers.empty((SIZE,), np.dtype(np.uint8))
            array[:] = number
            if not (array == number).all():
                return False
        return True

    with buffers.kept(), ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))
