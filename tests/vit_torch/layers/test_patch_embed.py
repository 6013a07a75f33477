from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import numpy_reference
from tests.random_weights import random_images
from tests.small_configs import BASE
from tests.vit_torch.models import randomize
from vit_spec import VitportError
from vit_torch import PatchEmbed, make_norm


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_norm", [True, False])
def test_patches_are_cut_out_row_by_row_and_projected(bias: bool, with_norm: bool):
    """Oracle: numpy float64, patch by patch."""
    norm = (lambda width: make_norm(BASE, width)) if with_norm else None
    layer = PatchEmbed(BASE.image_size, BASE.patch_size, BASE.in_channels, BASE.embed_dim, bias, norm)
    params = randomize(layer, "patch_embed")
    images = random_images(BASE, 2, 0)
    expected = np.stack([numpy_reference.patches(BASE, params, image) for image in images])
    np.testing.assert_allclose(layer(torch.tensor(images)).detach().numpy(), expected, rtol=0, atol=1e-13)
    assert ("patch_embed.proj.bias" in params) == bias


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((2, 3, 224, 192), "images of 224x192 pixels do not fit a model made for 224x224: .* image_size=.224, 192."),
        ((2, 1, 224, 224), "have 1 channels on axis 1, but the model was made for 3"),
        ((2, 224, 224, 3), "have 224 channels on axis 1, .* pass .batch, channels, height, width."),
        ((3, 224, 224), r"shape \(3, 224, 224\) are not a batch: expected .batch, channels, height, width."),
    ],
)
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], sentence: str):
    with pytest.raises(VitportError, match=sentence):
        PatchEmbed(embed_dim=8)(torch.zeros(shape))


def test_bytes_are_not_taken_for_normalised_images():
    with pytest.raises(VitportError, match=r"images have the dtype torch\.uint8, but a model takes normalised floats"):
        PatchEmbed(embed_dim=8)(torch.zeros((2, 3, 224, 224), dtype=torch.uint8))
