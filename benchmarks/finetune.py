"""Fine-tuning without a recipe, beside a linear probe of the same weights: ``python -m benchmarks.finetune``.

Each case is what a new user types, ``vitport train --weights W --data D``, for DINOv2 with fewer epochs and pixels, to
save time. The page docs/reports/finetune.md shows what it prints.
"""

from __future__ import annotations

import gzip
import importlib.resources
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageEnhance

import conversion
from vit_cli.download import DINOV2_SMALL, default_cache, fetch, fetch_photograph
from vit_cli.main import main as vitport
from vit_jax.training.data import open_source
from vit_jax.training.evaluation.features import linear_probe, read_features
from vit_jax.training.recipe.config import CONFIG, read_config
from vit_jax.training.run.log import read_lines

DIGITS_VIT = Path(str(importlib.resources.files("vit_cli") / "assets" / "digits_vit.safetensors"))
FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""


@dataclass(frozen=True)
class Case:
    """One fine-tuning."""

    weights: str
    data: str


CASES = [Case(weights, data) for weights in ("digits_vit", "dinov2") for data in ("photos", "digits", "fashion")]


def main(
    only: Annotated[str, tyro.conf.Positional] = "", epochs: int = 4, pixels: int = 112, fashion: Path = FASHION
) -> None:
    """Fine-tunes, and measures the linear probe of the same weights.

    Args:
        only: Part of the name of the cases to run, such as dinov2-photos.
        epochs: Of DINOv2; the digits ViT gets as many as it would without an option.
        pixels: A side of DINOv2's images. It would take 224, at four times the cost.
        fashion: The folder of Fashion-MNIST's files.
    """
    print("weights     data     training  validation  pixels  epochs  linear probe  fine-tuned  seconds")  # noqa: T201
    for case in CASES:
        if only not in f"{case.weights}-{case.data}":
            continue
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            write_images(data, IMAGES[case.data](case.weights == "digits_vit", fashion))
            print(measured(case, data, Path(folder) / "run", epochs, pixels), flush=True)  # noqa: T201


def measured(case: Case, data: Path, workdir: Path, epochs: int, pixels: int) -> str:
    """A row of the table."""
    weights = DIGITS_VIT if case.weights == "digits_vit" else fetch(DINOV2_SMALL, default_cache())
    quick = () if case.weights == "digits_vit" else ("--model.image-size", str(pixels), "--epochs", str(epochs))
    start = time.perf_counter()
    status = vitport(["train", "--weights", str(weights), "--data", str(data), "--workdir", str(workdir), *quick])
    seconds = time.perf_counter() - start
    assert status == 0
    *_, last = (line for line in read_lines(workdir) if line["of"] == "validation")
    trained = conversion.load(workdir)
    body = conversion.prepare(None, weights=conversion.load(weights), image_size=trained.config.image_size,
                              pool=trained.config.pool, num_classes=0)  # fmt: skip
    train, validation = (open_source(str(data), split) for split in ("train", "validation"))
    assert train is not None
    assert validation is not None
    known, asked = (read_features(body, source, batch=32) for source in (train, validation))
    probe = linear_probe(known, asked, len(train.classes))
    length = read_config(workdir / CONFIG).epochs
    return (
        f"{case.weights:<11} {case.data:<8} {len(train):>8}  {len(validation):>10}  {trained.config.image_size[0]:>6}  "
        f"{length:>6g}  {probe:>12.1%}  {last['accuracy']:>10.1%}  {seconds:>7.0f}"
    )


Labelled = Iterator[tuple[str, str, Image.Image]]
"""Split, class and image."""


def write_images(folder: Path, images: Labelled) -> None:
    """A folder per split and class, as people have them."""
    for number, (split, name, image) in enumerate(images):
        path = folder / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def photos(small: bool, fashion: Path) -> Labelled:
    """246 cuts of three photographs, scikit-learn's temple and flower and scikit-image's coffee, each of another place,
    scale, brightness and saturation. No two of training and validation overlap: a quarter of the 40 cells of each
    photograph is for validation."""
    del small, fashion
    from sklearn.datasets import load_sample_images

    found: dict[str, np.ndarray] = dict(zip(("temple", "flower"), load_sample_images().images, strict=True))
    found["coffee"] = np.asarray(Image.open(fetch_photograph(default_cache())).convert("RGB"))
    rng = np.random.default_rng(0)
    for name, pixels in found.items():
        whole = Image.fromarray(pixels)
        cells = rng.permutation([(x, y) for x in range(8) for y in range(5)])
        width, height = whole.width // 8, whole.height // 5
        for split, count, own in (("train", 62, cells[10:]), ("val", 20, cells[:10])):
            for at in range(count):
                column, row = own[at % len(own)]
                side = int(rng.integers(48, min(width, height)))
                x = int(column) * width + int(rng.integers(width - side + 1))
                y = int(row) * height + int(rng.integers(height - side + 1))
                cut = ImageEnhance.Brightness(whole.crop((x, y, x + side, y + side))).enhance(rng.uniform(0.6, 1.4))
                yield split, name, ImageEnhance.Color(cut).enhance(rng.uniform(0.0, 1.5))


def digits(small: bool, fashion: Path) -> Labelled:
    """scikit-learn's digits, all for the digits ViT, which learned on the training images, or 400 and 200."""
    del fashion
    for split, count in (("train", 400), ("validation", 200)):
        source = open_source("digits", split)  # type: ignore[arg-type]
        assert source is not None
        for at in range(len(source) if small else count):
            record = source[at]
            assert isinstance(record.image, np.ndarray)
            yield (
                {"train": "train"}.get(split, "val"),
                source.classes[record.label],
                Image.fromarray(record.image[..., 0]),
            )


def fashion_mnist(small: bool, fashion: Path) -> Labelled:
    """The first images of Fashion-MNIST: 2,000 and 1,000 for the digits ViT, 400 and 200 for DINOv2."""
    for split, part, count in (("train", "train", 400), ("val", "t10k", 200)):
        n = count * 5 if small else count
        pixels = np.frombuffer(_unpacked(fashion / f"{part}-images-idx3-ubyte.gz", 16, 784 * n), np.uint8)
        labels = _unpacked(fashion / f"{part}-labels-idx1-ubyte.gz", 8, n)
        for image, label in zip(pixels.reshape(-1, 28, 28), labels, strict=True):
            yield split, f"kind {label}", Image.fromarray(image)


def _unpacked(path: Path, head: int, size: int) -> bytes:
    with gzip.open(path) as file:
        return file.read(head + size)[head:]


IMAGES: dict[str, Callable[[bool, Path], Labelled]] = {"photos": photos, "digits": digits, "fashion": fashion_mnist}

if __name__ == "__main__":
    tyro.cli(main)
