from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import numpy_reference
from tests.random_weights import random_images
from tests.small_configs import BASE
from tests.vit_jax.models import nhwc, quick_jit, randomize
from vit_jax import Init, PatchEmbed, make_norm
from vit_spec import VitportError

pytestmark = pytest.mark.jax_alone


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_norm", [True, False])
def test_patches_are_cut_out_row_by_row_and_projected(bias: bool, with_norm: bool):
    """Oracle: numpy float64, patch by patch."""
    images = random_images(BASE, 2, 0)
    with jax.enable_x64(True):
        init = Init(nnx.Rngs(0), jnp.float64, jnp.float64)
        norm = (lambda width: make_norm(BASE, width, init=init)) if with_norm else None
        layer = PatchEmbed(BASE.image_size, BASE.patch_size, BASE.in_channels, BASE.embed_dim, bias, norm, init=init)
        params = randomize(layer, "patch_embed")
        actual = np.asarray(quick_jit(layer)(nhwc(images)))
    expected = np.stack([numpy_reference.patches(BASE, params, image) for image in images])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)
    assert ("patch_embed.proj.bias" in params) == bias


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((2, 224, 192, 3), "images of 224x192 pixels do not fit a model made for 224x224: .* image_size=.224, 192."),
        ((2, 224, 224, 1), "have 1 channels on axis 3, but the model was made for 3"),
        ((2, 3, 224, 224), "have 224 channels on axis 3, .* pass .batch, height, width, channels."),
        ((224, 224, 3), r"shape \(224, 224, 3\) are not a batch: expected .batch, height, width, channels."),
    ],
)
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], sentence: str):
    layer = nnx.eval_shape(lambda: PatchEmbed(embed_dim=8, init=Init(nnx.Rngs(0))))
    with pytest.raises(VitportError, match=sentence):
        layer(jnp.zeros(shape))


def test_bytes_are_not_taken_for_normalised_images():
    layer = nnx.eval_shape(lambda: PatchEmbed(embed_dim=8, init=Init(nnx.Rngs(0))))
    with pytest.raises(VitportError, match="images have the dtype uint8, but a model takes normalised floats"):
        layer(jnp.zeros((2, 224, 224, 3), jnp.uint8))
