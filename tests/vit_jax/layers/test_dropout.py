from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vit_jax.layers.dropout import Dropout, ImageRngs, keep_mask
from vit_spec import VitportError

pytestmark = pytest.mark.jax_alone

RATE = 0.3


def test_dropout_sets_to_zero_and_divides_what_is_left():
    """Oracle: the definition."""
    x = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    dropped = np.asarray(Dropout(RATE)(jnp.asarray(x), rngs=nnx.Rngs(dropout=0)))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], x[kept] / 0.7, rtol=1e-6)
    # Binomial: four standard errors are 4 * sqrt(0.3 * 0.7 / 2000) = 0.041.
    assert abs(kept.mean() - 0.7) < 0.041


def test_an_image_gets_the_masks_that_it_would_get_alone():
    """Whatever is with it, and at whichever place: in the second draw too."""
    keys = jax.random.split(jax.random.key(0), 6)
    x = jnp.ones((6, 5, 8))

    def draws(chosen: jax.Array, x: jax.Array) -> list[np.ndarray]:
        rngs = ImageRngs(chosen)
        return [np.asarray(Dropout(RATE)(x, rngs=rngs)) for _ in range(2)]

    together, turned = draws(keys, x), draws(keys[::-1], x)
    for number in range(6):
        alone = draws(keys[number : number + 1], x[:1])
        for draw in range(2):
            np.testing.assert_array_equal(alone[draw][0], together[draw][number])
            np.testing.assert_array_equal(alone[draw][0], turned[draw][5 - number])
    first, second = together
    assert (first[0] != first[1]).any()
    assert (first != second).any()


@pytest.mark.parametrize("keys", [jax.random.key(1), jax.random.split(jax.random.key(1), 200)])
def test_a_mask_keeps_its_share_with_one_key_and_with_many(keys):
    """Binomial: four standard errors are 4 * sqrt(0.9 * 0.1 / 10000) = 0.012."""
    assert abs(np.asarray(keep_mask(keys, 0.9, (200, 50))).mean() - 0.9) < 0.012


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dropout_keeps_the_dtype(dtype: str):
    assert Dropout(RATE)(jnp.ones((4, 2), dtype), rngs=nnx.Rngs(dropout=0)).dtype == dtype


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_dropout_is_the_identity_in_evaluation_and_at_rate_zero(rate: float, training: bool):
    layer = Dropout(rate)
    layer.train() if training else layer.eval()
    x = jnp.ones((50, 3))
    assert layer(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rate_is_refused(rate: float):
    with pytest.raises(VitportError, match=rf"Dropout's rate must be in \[0, 1\); got {rate}\."):
        Dropout(rate)


def test_a_key_of_the_old_kind_is_one_key():
    old, new = keep_mask(jax.random.PRNGKey(3), 0.5, (4, 5)), keep_mask(jax.random.key(3), 0.5, (4, 5))
    np.testing.assert_array_equal(old, new)


def test_training_without_random_numbers_is_refused():
    with pytest.raises(VitportError, match=r"needs rngs=nnx.Rngs\(dropout=key\)"):
        Dropout(0.5)(jnp.ones((2, 3)))


def test_windows_of_an_image_draw_from_its_key_alone():
    """An image's masks do not depend on its batch, also where its windows are rows of their own."""
    keys = jax.random.split(jax.random.key(0), 3)
    together = keep_mask(keys, 0.5, (6, 40))
    assert together.shape == (6, 40)
    for at in range(3):
        alone = keep_mask(keys[at : at + 1], 0.5, (2, 40))
        assert (together[2 * at : 2 * at + 2] == alone).all()
        assert 0 < alone.mean() < 1
    assert (together[0] != together[1]).any()
