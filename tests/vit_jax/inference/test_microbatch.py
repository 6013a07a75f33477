"""Batches in microbatches. Oracle: the model itself, image by image."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import vit_jax
from vit_jax.inference.inference import Inference
from vit_jax.inference.microbatch import microbatch_size, microbatched
from vit_spec import ViTConfig, get_model

pytestmark = [
    pytest.mark.jax_alone,
    pytest.mark.skipif(jax.default_backend() != "cpu", reason="microbatches are for CPUs"),
]

WIDE = ViTConfig(
    image_size=(32, 32), patch_size=4, num_classes=5, embed_dim=64, depth=2, num_heads=2, mlp_hidden_dim=4096
)
"""Its widest array takes 1.07 MB an image: nine fit."""


@pytest.mark.parametrize(
    ("model", "batch", "threads", "size"),
    [
        ("vit_tiny_patch16_224", 64, 2, 16),  # 0.61 MB an image: 17 fit
        ("vit_tiny_patch16_224", 64, 1, 8),
        ("vit_small_patch16_224", 8, 2, 8),
        ("vit_base_patch16_224", 32, 2, 4),
        ("vit_base_patch16_224", 31, 2, 31),  # a prime
        ("vit_base_patch16_224", 1, 2, 1),
        ("vit_large_patch16_224", 100, 2, 2),  # 3.2 MB: three fit
        ("vit_large_patch16_224", 100, 8, 10),  # twelve
    ],
)
def test_a_microbatch_divides_the_batch_and_fits_the_caches(model: str, batch: int, threads: int, size: int) -> None:
    """Sizes counted by hand from 197 tokens of 4 D numbers of four bytes, and 5 MiB a core."""
    assert microbatch_size(get_model(model).config, batch, itemsize=4, threads=threads) == size


@pytest.mark.parametrize("classes", [5, 0])
def test_microbatches_give_each_image_what_it_gets_alone_and_take_less_memory(classes: int, monkeypatch) -> None:
    """Measured: 7e-7 of the largest, where a product of other rows is summed in another order; temporaries 0.50."""
    monkeypatch.setattr("vit_jax.inference.microbatch.cores", lambda: 2)
    config = WIDE.replace(num_classes=classes)
    model = vit_jax.create_model(config)
    rng = np.random.default_rng(0)
    params = {
        path: array + rng.normal(0, 0.05, array.shape).astype(np.float32)
        for path, array in vit_jax.get_params(model).items()
    }
    images = rng.standard_normal((12, 32, 32, 3)).astype(np.float32)
    inference = Inference(model)
    alone = np.concatenate([inference(params, image[None]) for image in images])
    assert microbatch_size(config, 12, 4, 2) == 6
    compiled = jax.jit(microbatched(inference)).lower(params, images).compile()
    found = np.asarray(compiled(params, images))
    np.testing.assert_allclose(found, alone, rtol=0, atol=4e-6 * np.abs(alone).max())
    whole = jax.jit(inference).lower(params, images).compile()
    assert _temporaries(compiled) < 0.7 * _temporaries(whole)


def _temporaries(compiled: jax.stages.Compiled) -> int:
    analysis = compiled.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes
