"""Classifies every image of a folder, on all devices of this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from conversion import Checkpoint
from conversion.containers.file_checks import read_regular
from vit_jax.inference import compile_inference
from vit_jax.training.data import evaluation_batches
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.files import MOST_IMAGE, walk
from vit_jax.training.data.sources.image_folder import SUFFIXES
from vit_jax.training.data.sources.names import Names
from vit_jax.training.evaluation.evaluate import Clock
from vit_jax.training.recipe.execution import Precision
from vit_spec import VitportError


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The image files below a folder, sorted by path; a source without labels."""

    name: str
    names: Names
    count: int
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int, /) -> Record:
        path = Path(self.name, self.names[at])
        return Record(str(path), 0, read_regular(path, MOST_IMAGE))


def image_files(folder: Path) -> ImageFiles:
    """
    Raises:
        VitportError: if there are none.
    """
    found = sorted(
        Path(below, file).relative_to(folder).as_posix()
        for below, files in walk(folder)
        for file in files
        if file.lower().endswith(SUFFIXES) and not file.startswith(".")
    )
    if not found:
        raise VitportError(f"{folder} has no images: give an image file, or a folder that holds some.")
    return ImageFiles(str(folder), Names.of(found), len(found))


class Predicted(NamedTuple):
    """What a model says of one image."""

    image: str
    logits: np.ndarray | None
    """(K,) float32; ``None`` where the image could not be read."""


def classify(
    checkpoint: Checkpoint, images: ImageFiles, clock: Clock, *, batch: int, workers: int, precision: Precision
) -> Iterator[Predicted]:
    """Every image in order, with the weights' own preprocessing.

    Args:
        clock: measures the speed.
        batch: images at a time, over all devices.
        workers: processes that decode; 0: threads.
        precision: of the computation.
    """
    forward = compile_inference(checkpoint, batch, dtype=precision)
    at = 0
    with evaluation_batches(images, checkpoint.preprocessing, batch=batch, workers=workers) as batches:
        for rows in batches:
            logits, weight = np.asarray(forward(rows["image"]), np.float32), rows["weight"]
            clock.add(min(batch, len(images) - at))
            for row in range(min(batch, len(images) - at)):
                name = str(Path(images.name, images.names[at]))
                yield Predicted(name, logits[row] if weight[row] else None)
                at += 1
