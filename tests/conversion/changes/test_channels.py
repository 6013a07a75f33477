"""Images of another number of channels."""

from __future__ import annotations

import numpy as np
import pytest

from conversion import Checkpoint, with_channels
from tests import numpy_reference
from tests.random_weights import random_images, random_params
from tests.small_configs import BASE
from vit_spec import Preprocessing, VitportError

KERNEL = "patch_embed.proj.weight"
PREPROCESSING = Preprocessing(size=BASE.image_size, mean=(0.1, 0.2, 0.6), std=(0.2, 0.3, 0.4))


def checkpoint(channels: int = 3) -> Checkpoint:
    config = BASE.replace(in_channels=channels)
    return Checkpoint.of(config, random_params(config, 0), PREPROCESSING if channels == 3 else None)


def test_one_channel_gives_what_three_equal_ones_gave():
    """Oracle: tests/numpy_reference.py, run on the grey image in three channels."""
    before = checkpoint()
    after = with_channels(before, 1)
    grey = random_images(after.config, 2, 1)
    expected = numpy_reference.forward(before.config, dict(before.params), np.repeat(grey, 3, axis=1))
    actual = numpy_reference.forward(after.config, dict(after.params), grey)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_more_channels_follow_timms_rule(channels: int):
    """Oracle: timm 1.0.31's ``adapt_input_conv``, written out: the kernel tiled, cut off, scaled by 3 / n."""
    kernel = checkpoint().params[KERNEL]
    expected = np.concatenate([kernel] * 3, axis=1)[:, :channels] * (3 / channels)
    np.testing.assert_allclose(with_channels(checkpoint(), channels).params[KERNEL], expected, rtol=1e-15)


def test_one_channel_becomes_three_that_answer_to_a_grey_image_as_it_did():
    """Oracle: tests/numpy_reference.py."""
    before = checkpoint(1)
    after = with_channels(before, 3)
    grey = random_images(before.config, 2, 1)
    expected = numpy_reference.forward(before.config, dict(before.params), grey)
    actual = numpy_reference.forward(after.config, dict(after.params), np.repeat(grey, 3, axis=1))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


def test_the_preprocessing_follows_and_the_change_is_told():
    grey = with_channels(checkpoint(), 1)
    assert grey.preprocessing.mean == pytest.approx((0.3,))
    assert grey.preprocessing.std == pytest.approx((0.3,))
    told = "changed: images of 1 channel in place of 3, the patch kernel summed over its channels"
    assert grey.provenance.notes == (told,)
    five = with_channels(checkpoint(), 5)
    assert five.preprocessing.mean == (0.1, 0.2, 0.6, 0.1, 0.2)
    assert five.preprocessing.std == (0.2, 0.3, 0.4, 0.2, 0.3)
    told = "changed: images of 5 channels in place of 3, the patch kernel's channels repeated and scaled by 3/5"
    assert five.provenance.notes == (told,)


def test_the_dtype_is_kept_and_the_same_number_changes_nothing():
    half = Checkpoint.of(BASE, random_params(BASE, 0, np.float16))
    assert with_channels(half, 4).params[KERNEL].dtype == np.float16
    assert with_channels(half, 3) is half


def test_no_channel_is_refused():
    with pytest.raises(VitportError, match="in_channels=0 is too small"):
        with_channels(checkpoint(), 0)
