"""Tables of relative position biases for another window.

Oracles: torch's own interpolation; scipy's RectBivariateSpline, which interp2d of SimMIM's and BEiT's code was, at
positions computed here as that code does; timm's own function in tests/peer. Tolerance 1e-12: float64 rounding.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RectBivariateSpline, RegularGridInterpolator

from conversion.tensors.offset_table import resize_offset_table
from vit_spec import VitportError

TOLERANCE = 1e-12


def table(window: tuple[int, int], heads: int = 3) -> np.ndarray:
    rows = (2 * window[0] - 1) * (2 * window[1] - 1)
    return np.random.default_rng(0).standard_normal((rows, heads))


def simmim_positions(source: int, target: int) -> list[float]:
    """utils_simmim.py of microsoft/Swin-Transformer, after BEiT."""
    left, right, q = 1.01, 1.5, 0.0
    while right - left > 1e-6:
        q = (left + right) / 2.0
        if (1.0 - q ** (source // 2)) / (1.0 - q) > target // 2:
            right = q
        else:
            left = q
    distances, current = [], 1.0
    for at in range(source // 2):
        distances.append(current)
        current += q ** (at + 1)
    return [-each for each in reversed(distances)] + [0.0] + distances


@pytest.mark.parametrize(("source", "target"), [(7, 12), (12, 7), (4, 8), (6, 7), (3, 16)])
def test_bicubic_is_torchs(source: int, target: int) -> None:
    values = table((source, source))
    S, T = 2 * source - 1, 2 * target - 1
    grid = torch.tensor(values).T.reshape(1, 3, S, S)
    expected = torch.nn.functional.interpolate(grid, size=(T, T), mode="bicubic").reshape(3, -1).T.numpy()
    found = resize_offset_table(values, source=(source,) * 2, target=(target,) * 2, method="torch-bicubic")
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize(("source", "target"), [(7, 12), (12, 7), (4, 8), (6, 7), (3, 16)])
def test_cubic_is_the_spline_of_simmim(source: int, target: int) -> None:
    values = table((source, source))
    S, T = 2 * source - 1, 2 * target - 1
    at = simmim_positions(S, T)
    wanted = np.arange(T) - T // 2.0
    found = resize_offset_table(values, source=(source,) * 2, target=(target,) * 2, method="geometric-cubic")
    for head in range(3):
        expected = RectBivariateSpline(at, at, values[:, head].reshape(S, S))(wanted, wanted).reshape(-1)
        assert np.abs(found[:, head] - expected).max() <= 1e-11  # measured 3e-13


@pytest.mark.parametrize(
    ("source", "target"), [((7, 7), (12, 12)), ((12, 12), (7, 7)), ((4, 6), (4, 9)), ((2, 7), (5, 3))]
)
def test_geometric_is_bilinear_between_the_same_positions(source: tuple[int, int], target: tuple[int, int]) -> None:
    values = table(source)
    (S, U), (T, V) = (tuple(2 * side - 1 for side in window) for window in (source, target))
    rows, columns = np.array(simmim_positions(S, T)), np.array(simmim_positions(U, V))
    y = np.clip(np.arange(T) - T // 2, rows[0], rows[-1])
    x = np.clip(np.arange(V) - V // 2, columns[0], columns[-1])
    expected = RegularGridInterpolator((rows, columns), values.reshape(S, U, 3))(
        np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)
    )
    found = resize_offset_table(values, source=source, target=target, method="timm-geometric")
    assert np.abs(found - expected.reshape(-1, 3)).max() <= TOLERANCE


def test_the_same_window_is_the_same_table_and_the_centre_stays() -> None:
    values = table((7, 7)).astype(np.float32)
    for method in ("timm-geometric", "torch-bicubic", "geometric-cubic"):
        assert resize_offset_table(values, source=(7, 7), target=(7, 7), method=method) is values
        found = resize_offset_table(values, source=(7, 7), target=(9, 9), method=method)
        assert found.shape == (289, 3)
        assert found.dtype == np.float32
        if method != "torch-bicubic":
            assert np.allclose(found[144], values[84], atol=1e-6)


def test_what_cannot_be_resized_is_refused() -> None:
    with pytest.raises(VitportError, match=r"does not fit a window of 7x7: expected \(169, heads\)"):
        resize_offset_table(table((6, 6)), source=(7, 7), target=(8, 8), method="torch-bicubic")
    with pytest.raises(VitportError, match="choose one of timm-geometric"):
        resize_offset_table(table((6, 6)), source=(6, 6), target=(8, 8), method="dinov2")  # type: ignore[arg-type]
    with pytest.raises(VitportError, match="at least 4 offsets"):
        resize_offset_table(table((2, 2)), source=(2, 2), target=(8, 8), method="geometric-cubic")
