"""Large arrays by pieces give what numpy gives on the whole."""

from __future__ import annotations

import numpy as np
import pytest

from vit_parity.measure import measure, relative
from vit_parity.pieces import PIECE, Blur, by_rows, over
from vit_parity.semantics.layers import softmax
from vit_parity.shelf import Shelf
from vit_parity.ulp import measure_ulps, ulp_distance

SIZE = 3 * PIECE + 5
RNG = np.random.default_rng(4)


def test_pieces_come_in_order_and_cover_everything():
    x = np.arange(SIZE).reshape(-1, 1)
    parts = over(lambda part: part.copy(), x)
    assert len(parts) == 4
    np.testing.assert_array_equal(np.concatenate(parts), x.ravel())
    assert over(len, np.zeros((0, 3))) == []


def test_rows_stay_whole():
    x = RNG.standard_normal((7, 331, 77))
    np.testing.assert_array_equal(by_rows(softmax, x), softmax(x))


def test_a_blur_draws_the_numbers_of_numpy_s_generator():
    """One after the other through calls of any size, and again from a place that was passed over."""
    u, rng, blur = 2.0**-24, np.random.default_rng(0), Blur(2.0**-24)
    arrays = [RNG.standard_normal(size) for size in (3, SIZE, 1, 2 * PIECE)]
    expected = [x * (1.0 + rng.uniform(-u, u, x.shape)) for x in arrays]
    begin = blur.reserve(3)
    for x, right in zip(arrays[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(blur(x), right)
    np.testing.assert_array_equal(blur.at(begin, arrays[0]), expected[0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("size", [1e-7, 1e-3, 10.0])
def test_measures_are_numpy_s(dtype, size):
    """Oracle: the formulas on whole arrays; ulps from below one to billions."""
    a = RNG.standard_normal(SIZE).astype(dtype)
    b = (a * (1 + size * RNG.standard_normal(SIZE))).astype(dtype)
    x, y = a.astype(np.float64), b.astype(np.float64)
    found = measure(b, a)
    right = [np.abs(y - x).max(), np.abs(y - x).mean(), np.linalg.norm(y - x) / np.linalg.norm(x),
             x @ y / np.linalg.norm(x) / np.linalg.norm(y)]  # fmt: skip
    np.testing.assert_allclose([found.max_abs, found.mean_abs, found.relative, found.cosine], right, rtol=1e-12)
    assert relative(b, a) == pytest.approx(right[2], rel=1e-12)
    distance = ulp_distance(b, a)
    ulps = measure_ulps(b, a)
    assert [ulps.median, ulps.p99, ulps.max] == [*np.quantile(distance, (0.5, 0.99)), distance.max()]


def test_a_shelf_gives_back_what_it_took():
    """In memory, or from the file: bits, dtype and shape; small arrays stay in memory."""
    large = RNG.standard_normal((600, 500)).astype(np.float32)
    arrays = {"large": large, "small": large[:2, :3], "turned": large.T}
    kept = Shelf(1.0).put(dict(arrays))
    for name, array in arrays.items():
        assert kept[name].dtype == array.dtype
        np.testing.assert_array_equal(kept[name], array)
    assert kept["small"] is arrays["small"]
    assert kept["large"] is not large
    assert Shelf(1e9).put({"large": large})["large"] is large
