"""Evaluates weights on labelled images, outside any run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from conversion import Checkpoint
from conversion.containers.file_checks import MOST_JSON, read_regular
from conversion.destination import written_aside
from vit_jax.inference import compile_inference
from vit_jax.training.data import Source, evaluation_batches
from vit_jax.training.evaluation.class_names import places_of
from vit_jax.training.evaluation.scores import Scores, judge
from vit_jax.training.recipe.execution import Precision
from vit_spec import VitportError


@dataclass(frozen=True)
class EvaluationResult:
    """What :func:`evaluate` returns."""

    scores: Scores
    predicted: np.ndarray
    """(images,): the most probable class of each image in the source's numbers, -1 where it could not be read; classes
    that the source does not have follow on its own."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Images that could not be read, with the reasons."""
    places: np.ndarray = field(default_factory=lambda: np.arange(0))
    """(source's classes,): the model's number of each class of the source."""
    note: str = ""
    """How the classes of model and source belong together, where they do not simply agree."""
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(images,): the probability of the predicted class, 0 where the image could not be read."""


def evaluate(
    checkpoint: Checkpoint, source: Source, *, batch: int, workers: int = 0, precision: Precision = "float32"
) -> EvaluationResult:
    """Classifies every image of the source once, with the weights' own preprocessing, on all devices of this process.

    Args:
        batch: images at a time.
        workers: processes that decode; 0: threads.
        precision: of the computation.

    Raises:
        VitportError: if the source has a class that the model does not have, by name where both have names.
    """
    classes = checkpoint.config.num_classes
    places, note = places_of(source, checkpoint.labels, classes)
    back = np.full(classes, -1)
    back[places] = np.arange(len(places))
    back[back < 0] = len(places) + np.arange((back < 0).sum())
    forward, judged = compile_inference(checkpoint, batch, dtype=precision), jax.jit(judge)
    scores, predicted, confidence = Scores(classes), [], []
    with evaluation_batches(source, checkpoint.preprocessing, batch=batch, workers=workers) as batches:
        for rows in batches:
            found = judged(forward(rows["image"]), places[rows["label"]], rows["weight"])
            scores.add(found)
            predicted.append(np.where(rows["weight"] > 0, back[np.asarray(found["predicted"])], -1))
            confidence.append(np.where(rows["weight"] > 0, np.asarray(found["confidence"]), 0))
        skipped = dict(batches.corrupt)
    whole, sure = (np.concatenate(each)[: len(source)] for each in (predicted, confidence))
    return EvaluationResult(scores, whole, skipped, places, note, sure)


def write_predictions(path: Path, result: EvaluationResult, checkpoint: Checkpoint, source: Source) -> None:
    """A table (CSV) with the image, its label, the predicted class and its probability of each row, in the order of the
    source; without a prediction where the image could not be read.

    Raises:
        VitportError: if it cannot be written.
    """
    own = set(result.places.tolist())
    labels = checkpoint.labels or tuple(map(str, range(checkpoint.config.num_classes)))
    names = [*source.classes, *(name for at, name in enumerate(labels) if at not in own)]
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image", "label", "predicted", "probability"))
        for at, (number, odds) in enumerate(zip(result.predicted, result.confidence, strict=True)):
            name, label = _named(source, at)
            table.writerow((name, label, *(("", "") if number < 0 else (names[number], f"{odds:.6f}"))))


def _named(source: Source, at: int) -> tuple[str, str]:
    """An image's name, and that of its class."""
    try:
        record = source[at]
    except (VitportError, OSError):
        return f"{source.name}[{at}]", ""
    return record.name, source.classes[record.label]


def read_real_labels(path: Path, source: Source) -> list[list[int]]:
    """ImageNet's reassessed labels (Beyer et al. 2020) of each image of a source.

    Args:
        path: ``real.json`` of https://github.com/google-research/reassessed-imagenet, which lists the labels of each
            validation image by its number.

    Raises:
        VitportError: if the file cannot be read as such, or the images are not named as ImageNet's.
    """
    try:
        lists = json.loads(read_regular(path, MOST_JSON))
    except VitportError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise VitportError(f"{path} cannot be read as ReaL labels ({error}): download real.json again.") from error
    if not isinstance(lists, list) or not all(isinstance(labels, list) for labels in lists):
        raise VitportError(f"{path} does not hold a list of ReaL labels: download real.json again.")
    found = []
    for at in range(len(source)):
        name = source[at].name
        number = re.search(r"val_(\d{8})", name)
        if number is None or not 1 <= int(number.group(1)) <= len(lists):
            raise VitportError(f"{path} has no labels for {name}: expected names such as ILSVRC2012_val_00000001.JPEG.")
        found.append(lists[int(number.group(1)) - 1])
    if not any(found):
        raise VitportError(f"{path} has no label for any image of {source.name}: give ImageNet's validation set.")
    return found


def real_accuracy(result: EvaluationResult, labels: Sequence[Sequence[int]]) -> float:
    """Accuracy on :func:`read_real_labels`: any label in an image's list is correct. Images with an empty list do not
    count, nor those that could not be read."""
    counted = [(int(p), allowed) for p, allowed in zip(result.predicted, labels, strict=True) if allowed and p >= 0]
    return sum(p in allowed for p, allowed in counted) / len(counted) if counted else float("nan")
