"""Windows, offsets and regions. Oracles: transformers' Swin v2, and the definitions of the papers, token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import Swinv2Config
from transformers.models.swinv2.modeling_swinv2 import Swinv2Layer, Swinv2SelfAttention

from tests.small_configs import SWIN_BASE, SWIN_CONFIGS
from vit_spec.swin.windows import Windowing, offset_coordinates, offset_indices, shift_regions, windowings

WINDOWS = [(1, 1), (2, 2), (3, 4), (7, 7), (5, 2), (1, 6)]


def _rule(rule: str, image: tuple[int, int], window: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    config = SWIN_BASE.replace(image_size=image, window_sizes=window, window_rule=rule)
    return [(each.window, each.shift) for each in windowings(config)]


def test_rules_are_those_of_the_implementations() -> None:
    """By hand, for maps of 6 x 20 and 3 x 10 and windows of 6, of which each code's source says what becomes."""
    assert _rule("axis", (12, 40), 6) == [((6, 6), (0, 3)), ((3, 6), (0, 3))]
    assert _rule("min", (12, 40), 6) == [((6, 6), (0, 0)), ((3, 3), (0, 0))]
    assert _rule("pad", (12, 40), 6) == [((6, 6), (0, 3)), ((6, 6), (0, 3))]
    assert _rule("never", (12, 40), 6) == [((6, 6), (3, 3)), ((6, 6), (3, 3))]


@pytest.mark.parametrize("rule", ["axis", "min", "pad", "never"])
def test_larger_maps_have_the_configured_window_under_every_rule(rule: str) -> None:
    assert _rule(rule, (60, 44), 5) == [((5, 5), (2, 2)), ((5, 5), (2, 2))]


def test_padding_fills_the_last_windows() -> None:
    windowing = Windowing((10, 14), (4, 7), (2, 3))
    assert (windowing.padded, windowing.grid, windowing.tokens, windowing.offsets) == ((12, 14), (3, 2), 28, 7 * 13)


@pytest.mark.parametrize("window", WINDOWS)
def test_indices_name_the_row_of_each_offset(window: tuple[int, int]) -> None:
    """Oracle: a table whose rows hold their own offsets, rows first."""
    height, width = window
    offsets = [(dy, dx) for dy in range(1 - height, height) for dx in range(1 - width, width)]
    tokens = [(y, x) for y in range(height) for x in range(width)]
    indices = offset_indices(window)
    for query, row in zip(tokens, indices, strict=True):
        for key, index in zip(tokens, row, strict=True):
            assert offsets[index] == (query[0] - key[0], query[1] - key[1])


def _attention(window: tuple[int, int], pretrained: tuple[int, int]) -> Swinv2SelfAttention:
    return Swinv2SelfAttention(Swinv2Config(), 96, 3, window, pretrained)


@pytest.mark.parametrize("pretrained", [(0, 0), (3, 3), (12, 6)])
@pytest.mark.parametrize("window", [(2, 2), (3, 4), (7, 7), (16, 16)])
def test_coordinates_and_indices_are_those_of_transformers(
    window: tuple[int, int], pretrained: tuple[int, int]
) -> None:
    """Its coordinates are float32: 6e-8 of values up to 2. Measured 1.2e-7."""
    attention = _attention(window, pretrained)
    expected = attention.relative_coords_table.reshape(-1, 2).numpy()
    actual = np.array(offset_coordinates(window, pretrained))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-7)
    np.testing.assert_array_equal(np.array(offset_indices(window)), attention.relative_position_index.numpy())


@pytest.mark.parametrize(
    ("window", "pretrained", "offset", "u"),
    [
        ((8, 8), (0, 0), (7, -3), (8.0, -24 / 7)),
        ((8, 4), (12, 0), (5, 1), (40 / 11, 8 / 3)),
        ((1, 5), (0, 3), (0, -4), (0, -16)),
    ],
)
def test_coordinates_are_the_papers_formula_in_double_precision(window, pretrained, offset, u) -> None:
    """Liu et al. 2022, equation 4, scaled to [-8, 8] and divided by log2 8 as the released code does."""
    expected = [math.copysign(math.log2(1 + abs(each)) / math.log2(8), each) for each in u]
    row = (offset[0] + window[0] - 1) * (2 * window[1] - 1) + offset[1] + window[1] - 1
    assert offset_coordinates(window, pretrained)[row] == pytest.approx(expected, rel=1e-15, abs=0)


@pytest.mark.parametrize("name", SWIN_CONFIGS)
def test_regions_are_masked_as_in_transformers(name: str) -> None:
    """Oracle: the mask of a layer of transformers' Swin v2 that is given our window, shift and padded map."""
    for windowing in windowings(SWIN_CONFIGS[name]):
        if windowing.window[0] != windowing.window[1] or 0 in windowing.shift:
            continue  # transformers has one window and one shift for both axes
        layer = Swinv2Layer(Swinv2Config(window_size=windowing.window[0]), 96, (99, 99), 3, shift_size=1)
        layer.window_size, layer.shift_size = windowing.window[0], windowing.shift[0]
        expected = layer.get_attn_mask(*windowing.padded, dtype=torch.float64)
        regions = torch.tensor(shift_regions(windowing))
        assert torch.equal(regions[:, :, None] != regions[:, None, :], expected != 0)


@pytest.mark.parametrize("shift", [(2, 0), (0, 3), (2, 3), (0, 0)])
def test_tokens_are_in_one_region_if_they_are_neighbours_on_the_map(shift: tuple[int, int]) -> None:
    """Oracle: positions carried through the shift and the partition; a window that wraps joins the two ends of an axis,
    and its tokens belong together if they come from the same end."""
    windowing = Windowing((12, 14), (4, 7), shift)
    rows, columns = windowing.padded
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1)
    places = np.roll(places, (-shift[0], -shift[1]), (0, 1))
    height, width = windowing.window
    windows = places.reshape(rows // height, height, columns // width, width, 2).swapaxes(1, 2)
    for regions, window in zip(shift_regions(windowing), windows.reshape(-1, height * width, 2), strict=True):
        for query, here in zip(regions, window, strict=True):
            for key, there in zip(regions, window, strict=True):
                apart = abs(here - there) >= windowing.window
                assert (query != key) == apart.any()
