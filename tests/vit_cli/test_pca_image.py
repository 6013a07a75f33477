"""Principal components and the image drawn of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from vit_cli.pca_image import PANEL, draw, feature_colours, principal_components


@pytest.fixture
def features() -> np.ndarray:
    """(48, 10) with directions of clearly different variance."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((48, 10)) * np.linspace(5, 1, 10) @ np.linalg.qr(rng.standard_normal((10, 10)))[0] + 3


def test_components_are_scikit_learn_s(features):
    """Up to the sign of each, which scikit-learn chooses by another rule."""
    found, expected = principal_components(features), PCA(3).fit_transform(features)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=0, atol=1e-10)


def test_signs_do_not_depend_on_rounding_or_order(features):
    """Noise of 1e-5 and another order of the patches give the same coordinates, to within the noise."""
    expected = principal_components(features)
    noise = np.random.default_rng(1).standard_normal(features.shape) * 1e-5
    np.testing.assert_allclose(principal_components(features + noise), expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(principal_components(features[::-1])[::-1], expected, rtol=0, atol=1e-9)


def test_largest_entry_of_each_direction_is_positive(features):
    """The rule as stated; the directions are found again by least squares."""
    coordinates = principal_components(features)
    directions = np.linalg.lstsq(coordinates, features - features.mean(0), rcond=None)[0]
    for direction in directions:
        assert direction[np.abs(direction).argmax()] > 0


def test_fewer_directions_than_colours_leave_the_rest_empty():
    """Two points on a line have one direction."""
    components = principal_components(np.array([[0.0], [2.0]]))
    np.testing.assert_allclose(components, [[-1, 0, 0], [1, 0, 0]])


def test_colours_follow_the_components_patch_by_patch(features):
    """Rows first; red rises with the first component."""
    colours = feature_colours(features, (4, 12))
    assert colours.shape == (4, 12, 3)
    assert colours.dtype == np.uint8
    order = principal_components(features)[:, 0].argsort()
    assert (np.diff(colours.reshape(48, 3)[order, 0].astype(int)) >= 0).all()
    assert (colours[..., 0].min(), colours[..., 0].max()) == (0, 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_panels_stand_side_by_side_and_patches_stay_squares(channels):
    """Each quarter of a panel has its patch's colour throughout."""
    patches = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]], np.uint8)
    canvas = np.asarray(draw(np.full((8, 8, channels), 100, np.uint8), {"A": patches, "B": patches}, ("one", "two")))
    gap = (canvas.shape[1] - 3 * PANEL) // 4
    top = next(y for y in range(canvas.shape[0]) if (canvas[y, 2 * gap + PANEL] == (255, 0, 0)).all())
    assert (canvas[top : top + PANEL, gap : gap + PANEL] == 100).all()
    for panel in (1, 2):
        left = gap + panel * (PANEL + gap)
        square = canvas[top : top + PANEL, left : left + PANEL]
        for y in (0, 1):
            for x in (0, 1):
                half = PANEL // 2
                assert (square[y * half : (y + 1) * half, x * half : (x + 1) * half] == patches[y, x]).all()
    assert (canvas[:top] < 200).any()  # titles
    assert (canvas[top + PANEL :] < 200).any()  # captions
