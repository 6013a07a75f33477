"""How long training waits for images: ``python -m benchmarks.data_wait [--images N] [--steps N] [--workers N]``.

A folder of JPEGs of 500 x 375 pixels, cut at random from scikit-learn's two photographs, trains a ViT-Ti/16 at 224
pixels with random resized crops and flips; printed are the share of the time that the loop waited for data, and images
per second.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from sklearn.datasets import load_sample_images

from vit_jax.training.data import Data
from vit_jax.training.recipe.config import CheckpointOptions, ModelOptions, TrainConfig
from vit_jax.training.run.callbacks import Callbacks
from vit_jax.training.run.loop import run
from vit_jax.training.run.monitor import Line
from vit_jax.training.run.setup import set_up


def main(images: int = 2000, steps: int = 30, batch: int = 16, workers: int = 1) -> None:
    """Trains and prints."""
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "data", images)
        options = TrainConfig(
            ModelOptions("vit_tiny_patch16_224"), Data(str(Path(folder) / "data"), workers=workers), batch=batch,
            steps=steps, log_every=5, keep=CheckpointOptions(every=steps),
        )  # fmt: skip
        callbacks = Callbacks(print, lambda line, steps: lines.append(line))
        run(set_up(options), Path(folder) / "run", callbacks)
    found = [line.speed for line in lines[1:] if line.speed is not None]  # the first fills the pipeline
    wait = statistics.mean(each.data_wait for each in found)
    speed = statistics.median(each.images_per_second for each in found)
    print(f"{images} images, {workers} workers: data wait {wait:.1%}, {speed:.1f} images/s")  # noqa: T201


def _write(folder: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(array) for array in load_sample_images().images]
    for at in range(images):
        photograph = photographs[at % 2].resize((800, 534))
        left, top = int(rng.integers(0, 300)), int(rng.integers(0, 159))
        to = folder / str(at % 10)
        to.mkdir(parents=True, exist_ok=True)
        photograph.crop((left, top, left + 500, top + 375)).save(to / f"{at}.jpg", quality=90)


if __name__ == "__main__":
    tyro.cli(main)
