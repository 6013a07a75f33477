"""Resizing position tables. Oracles, in float64: torch.nn.functional.interpolate, scipy.ndimage.zoom, jax.image.resize.

Measured: at most 1.8e-14 on values of standard deviation 1, over all cases. The kernels have at most 4 × 4 nonzero
weights of magnitude about 1 (antialiased: a few dozen), so the rounding of float64 allows some 1e-14 through the
coordinates, which the oracles compute in another order. Asserted: 1e-13.
"""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np
import pytest
import scipy.ndimage
import torch

from conversion import resize_position_table
from vit_spec import VitportError

TOLERANCE = 1e-13
GRIDS = [((37, 37), (16, 16)), ((14, 14), (24, 24)), ((5, 9), (8, 3)), ((1, 6), (4, 2)), ((7, 7), (1, 5))]
TORCH = {
    "torch-bicubic": {"mode": "bicubic"},
    "torch-bicubic-antialias": {"mode": "bicubic", "antialias": True},
    "torch-bilinear": {"mode": "bilinear"},
    "torch-bilinear-antialias": {"mode": "bilinear", "antialias": True},
    "torch-bicubic-corners": {"mode": "bicubic", "align_corners": True},
}


def _table(grid: tuple[int, int], prefix: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, prefix + grid[0] * grid[1], 5))


def _grid(table: np.ndarray, grid: tuple[int, int], prefix: int = 2) -> np.ndarray:
    return table[0, prefix:].reshape(*grid, 5)


def _resized(source: tuple[int, int], target: tuple[int, int], method: str) -> np.ndarray:
    table = _table(source)
    resized = resize_position_table(table, prefix=2, source_grid=source, target_grid=target, method=method)
    assert (resized[:, :2] == table[:, :2]).all()
    return _grid(resized, target)


def _channels_first(source: tuple[int, int]) -> torch.Tensor:
    return torch.from_numpy(_grid(_table(source), source)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("method", TORCH)
@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_torch_methods_are_torchs_interpolate(source, target, method) -> None:
    expected = torch.nn.functional.interpolate(_channels_first(source), target, **TORCH[method])
    np.testing.assert_allclose(_resized(source, target, method), expected[0].permute(1, 2, 0), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_dinov2_is_interpolation_by_its_scale_factor(source, target) -> None:
    factors = tuple((goal + 0.1) / side for side, goal in zip(source, target, strict=True))
    expected = torch.nn.functional.interpolate(_channels_first(source), scale_factor=factors, mode="bicubic")
    np.testing.assert_allclose(_resized(source, target, "dinov2"), expected[0].permute(1, 2, 0), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_scipy_zoom_is_what_googles_code_calls(source, target) -> None:
    factors = (target[0] / source[0], target[1] / source[1], 1)
    expected = scipy.ndimage.zoom(_grid(_table(source), source), factors, order=1)
    np.testing.assert_allclose(_resized(source, target, "scipy-zoom"), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("source", "target"), [(8, 26), (16, 30), (24, 22)])
def test_scipy_zoom_keeps_the_last_row_where_scipy_drops_it(source, target) -> None:
    """scipy rounds the last coordinate past the edge there and writes zeros; with mode="nearest" it does not."""
    grid = _grid(_table((source, source)), (source, source))
    factors = (target / source, target / source, 1)
    assert not scipy.ndimage.zoom(grid, factors, order=1)[-1].any()
    expected = scipy.ndimage.zoom(grid, factors, order=1, mode="nearest")
    ours = _resized((source, source), (target, target), "scipy-zoom")
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("method", "jax_method", "antialias", "reach"),
    [
        ("torch-bicubic", jax.image.ResizeMethod.CUBIC_PYTORCH, False, 2),
        ("torch-bicubic-antialias", jax.image.ResizeMethod.CUBIC, True, 0),
        ("torch-bilinear", jax.image.ResizeMethod.LINEAR, False, 0),
    ],
)
@pytest.mark.parametrize(("source", "target"), [((37, 37), (16, 16)), ((14, 14), (24, 24)), ((9, 12), (12, 7))])
def test_jax_has_the_same_methods_under_other_names(source, target, method, jax_method, antialias, reach) -> None:
    """Oracle: jax.image.resize. Without antialias its cubic drops what lies beyond the edge and renormalises, where
    torch repeats the edge: there all targets are compared whose ``reach`` source positions lie inside."""
    grid = _grid(_table(source), source)
    with jax.enable_x64(True):
        expected = np.asarray(jax.image.resize(grid, (*target, 5), jax_method, antialias=antialias))
    margin = [-(-reach * goal // side) for side, goal in zip(source, target, strict=True)]
    inside = tuple(slice(edge, goal - edge) for edge, goal in zip(margin, target, strict=True))
    ours = _resized(source, target, method)[inside]
    assert min(ours.shape) > 2
    np.testing.assert_allclose(ours, expected[inside], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", [*TORCH, "dinov2", "scipy-zoom"])
def test_the_same_grid_is_left_alone_bit_for_bit(method) -> None:
    table = _table((3, 4))
    assert (_resized((3, 4), (3, 4), method) == _grid(table, (3, 4))).all()


def test_methods_that_are_mistaken_for_each_other_differ_visibly() -> None:
    """The known traps: antialias, the constant -0.5 for -0.75, DINO's scale offset, aligned corners."""
    tables = [_resized((37, 37), (16, 16), method) for method in [*TORCH, "dinov2", "scipy-zoom"]]
    for at, first in enumerate(tables):
        for second in tables[at + 1 :]:
            assert np.abs(first - second).max() > 0.05


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_prefix_rows_are_copied_and_keep_out_of_the_grid(prefix) -> None:
    table = _table((4, 3), prefix)
    options = {"source_grid": (4, 3), "target_grid": (2, 5), "method": "torch-bicubic"}
    resized = resize_position_table(table, prefix=prefix, **options)
    assert resized.shape == (1, prefix + 10, 5)
    assert (resized[:, :prefix] == table[:, :prefix]).all()
    assert (resized[:, prefix:] == resize_position_table(table[:, prefix:], prefix=0, **options)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_dtype_is_kept_and_rounded_once(dtype) -> None:
    table = _table((5, 5), prefix=1).astype(dtype)
    options = {"prefix": 1, "source_grid": (5, 5), "target_grid": (3, 7), "method": "torch-bicubic"}
    resized = resize_position_table(table, **options)
    assert resized.dtype == dtype
    assert (resized == resize_position_table(table.astype(np.float64), **options).astype(dtype)).all()


def test_a_table_of_another_length_is_one_sentence() -> None:
    with pytest.raises(VitportError, match=r"shape \(1, 27, 5\) does not fit 1 prefix rows and a 5x5 grid"):
        resize_position_table(_table((5, 5)), prefix=1, source_grid=(5, 5), target_grid=(3, 3), method="torch-bicubic")


def test_an_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(VitportError, match="choose one of torch-bicubic"):
        resize_position_table(_table((2, 2)), prefix=2, source_grid=(2, 2), target_grid=(3, 3), method="nearest")  # type: ignore[arg-type]
