"""Trains the small ViT that `vitport demo` falls back on, and writes it with an image into vit_cli/assets.

    python scripts/train_digits_vit.py

The data are scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (the test set of UCI's Optical Recognition of
Handwritten Digits); a fifth of them, stratified, is kept for testing. On one machine every run gives the same file.
"""

from __future__ import annotations

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import conversion
import vit_jax
from vit_jax.training.run.init_schemes.vit import by_width
from vit_spec import Preprocessing, ViTConfig, count_parameters

ASSETS = Path(__file__).parents[1] / "vit_cli" / "assets"
CONFIG = ViTConfig(
    image_size=8, patch_size=2, in_channels=1, num_classes=10, embed_dim=32, depth=4, num_heads=4, drop_path_rate=0.1
)
PREPROCESSING = Preprocessing(size=8, mean=(0.5,), std=(0.5,), resize="squash")
EPOCHS, BATCH, PEAK_RATE, WEIGHT_DECAY, SMOOTHING = 80, 32, 2e-3, 0.1, 0.1
DEMO_DIGIT = 3
"""Index of the test digit that becomes the demo's image."""


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) * (255 / 16)).round().astype(np.uint8)  # as a PNG holds them
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    start = time.perf_counter()
    model = train(normalise(train_x), train_y)
    model.eval()
    accuracy = float((np.asarray(model(jnp.asarray(normalise(test_x)))).argmax(1) == test_y).mean())
    seconds = time.perf_counter() - start
    size = count_parameters(CONFIG)
    print(f"{accuracy:.2%} of {len(test_y)} test digits right, {size} parameters, trained in {seconds:.0f} s")  # noqa: T201

    ASSETS.mkdir(exist_ok=True)
    params = conversion.from_flax({path: np.asarray(array) for path, array in vit_jax.get_params(model).items()})
    config = CONFIG.replace(drop_path_rate=0.0)
    checkpoint = conversion.Checkpoint.of(config, params, PREPROCESSING, tuple(map(str, range(10))))
    conversion.save(checkpoint, ASSETS / "digits_vit.safetensors", format="timm", overwrite=True)
    Image.fromarray(test_x[DEMO_DIGIT, :, :, 0]).save(ASSETS / "digits.png")


def normalise(images: np.ndarray) -> np.ndarray:
    """Grey values (B, 8, 8, 1), uint8, as the model sees them, float32."""
    return ((images / 255 - PREPROCESSING.mean[0]) / PREPROCESSING.std[0]).astype(np.float32)


def train(images: np.ndarray, labels: np.ndarray) -> vit_jax.VisionTransformer:
    """AdamW on shifted digits, the learning rate falling along a half cosine after a short rise."""
    model = widened(vit_jax.create_model(CONFIG, rngs=nnx.Rngs(0)))
    steps = EPOCHS * (len(labels) // BATCH)
    rate = optax.warmup_cosine_decay_schedule(0.0, PEAK_RATE, steps // 20, steps)
    optimizer = optax.adamw(rate, weight_decay=WEIGHT_DECAY)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params: nnx.State, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
        logits = nnx.merge(graph, params, rest)(x, rngs=nnx.Rngs(dropout=key))
        targets = optax.smooth_labels(jax.nn.one_hot(y, CONFIG.num_classes), SMOOTHING)
        return optax.softmax_cross_entropy(logits, targets).mean()

    @jax.jit
    def step(
        params: nnx.State, state: optax.OptState, x: jax.Array, y: jax.Array, key: jax.Array
    ) -> tuple[nnx.State, optax.OptState]:
        shift_key, drop_key = jax.random.split(key)
        gradients = jax.grad(loss)(params, shifted(x, shift_key), y, drop_key)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    order = np.random.default_rng(0)
    for number in range(steps):
        if number % (len(labels) // BATCH) == 0:
            queue = order.permutation(len(labels))
        batch, queue = queue[:BATCH], queue[BATCH:]
        params, state = step(params, state, images[batch], labels[batch], jax.random.key(number))
    return nnx.merge(graph, params, rest)


def widened(model: vit_jax.VisionTransformer) -> vit_jax.VisionTransformer:
    """The model with the initial values of narrow ones."""
    vit_jax.set_params(model, by_width(vit_jax.get_params(model)))
    return model


def shifted(images: jax.Array, key: jax.Array) -> jax.Array:
    """Half of the images (B, 8, 8, 1) moved by up to one pixel in both directions, black coming in."""
    where_key, which_key = jax.random.split(key)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1.0)
    corners = jax.random.randint(where_key, (len(images), 2), 0, 3)
    moved = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), (8, 8, 1)))(padded, corners)
    return jnp.where(jax.random.bernoulli(which_key, 0.5, (len(images), 1, 1, 1)), moved, images)


if __name__ == "__main__":
    main()
