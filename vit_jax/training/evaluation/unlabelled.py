"""Classifies every image of a folder, on all devices of this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from conversion import Checkpoint
from vit_jax.inference import compile_inference
from vit_jax.training.data import evaluation_batches
from vit_jax.training.data.record import Record
from vit_jax.training.data.sources.folders import Files, Folder
from vit_jax.training.data.sources.image_folder import image_files
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
    files: Files
    classes: tuple[str, ...] = ()

    @property
    def at_once(self) -> int:
        """Images that are best read at the same time."""
        return self.files.at_once

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int, /) -> Record:
        path = self.names[at]
        return Record(self.files.name(path), 0, self.files.read(at, path))


def images_below(folder: Folder) -> ImageFiles:
    """
    Raises:
        VitportError: if there are none.
    """
    found = sorted(image_files(folder))
    if not found:
        raise VitportError(f"{folder} has no images: give an image file, or a folder that holds some.")
    return ImageFiles(str(folder), Names.of(found), len(found), folder.reader(found))


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
                name = images.files.name(images.names[at])
                yield Predicted(name, logits[row] if weight[row] else None)
                at += 1
