"""Evaluates weights on labelled images, outside any run."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from conversion import Checkpoint
from conversion.destination import written_aside
from vit_jax.inference import compile_inference
from vit_jax.training.data import Source, evaluation_batches
from vit_jax.training.data.record import about
from vit_jax.training.data.sources.files import read_text
from vit_jax.training.data.sources.holdout import are_several
from vit_jax.training.evaluation.class_names import places_of
from vit_jax.training.evaluation.label_scores import LabelScores
from vit_jax.training.evaluation.scores import AnyScores, judge, new_scores
from vit_jax.training.recipe.execution import Precision
from vit_spec import VitportError


@dataclass(frozen=True)
class EvaluationResult:
    """What :func:`evaluate` returns."""

    scores: AnyScores
    predicted: np.ndarray
    """(images,): the most probable class of each image in the source's numbers, -1 where it could not be read; classes
    that the source does not have follow on its own. Where an image may have several labels, none."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Images that could not be read, with the reasons."""
    places: np.ndarray = field(default_factory=lambda: np.arange(0))
    """(source's classes,): the model's number of each class of the source."""
    note: str = ""
    """How the classes of model and source belong together, where they do not simply agree."""
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(images,): the probability of the predicted class, 0 where the image could not be read. Where an image may have
    several labels, (images, source's classes): the probability of each, NaN where the image could not be read."""
    images_per_second: float | None = None
    """From files to scores, after the first batch; ``None`` for a single one."""


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
    places, note, alone = places_of(source, checkpoint.labels, classes)
    if are_several(source):
        return _of_several(checkpoint, source, places, note, batch, workers, precision)
    chosen = slice(None)
    if alone:  # the model's other classes are cut off, and the source's numbers are the head's
        chosen, classes, places = places, len(places), np.arange(len(places), dtype=np.int32)
    back = np.full(classes, -1)
    back[places] = np.arange(len(places))
    back[back < 0] = len(places) + np.arange((back < 0).sum())
    forward = compile_inference(checkpoint, batch, dtype=precision)
    judged = jax.jit(lambda logits, label, weight: judge(logits[:, chosen], label, weight))
    clock = Clock()
    scores, predicted, confidence = new_scores(classes, several=False), [], []
    with evaluation_batches(source, checkpoint.preprocessing, batch=batch, workers=workers) as batches:
        for rows in batches:
            found = judged(forward(rows["image"]), places[rows["label"]], rows["weight"])
            scores.add(found)
            predicted.append(np.where(rows["weight"] > 0, back[np.asarray(found["predicted"])], -1))
            confidence.append(np.where(rows["weight"] > 0, np.asarray(found["confidence"]), 0))
            clock.add(len(rows["weight"]))
        skipped = dict(batches.corrupt)
    whole, sure = (np.concatenate(each)[: len(source)] for each in (predicted, confidence))
    return EvaluationResult(scores, whole, skipped, places, note, sure, clock.rate)


def _of_several(
    checkpoint: Checkpoint,
    source: Source,
    places: np.ndarray,
    note: str,
    batch: int,
    workers: int,
    precision: Precision,
) -> EvaluationResult:
    """The same for images of several labels: each class of the source alone, whatever others the model has."""
    forward = compile_inference(checkpoint, batch, dtype=precision)
    judged = jax.jit(lambda logits, label, weight: judge(logits[:, places], label, weight))
    scores, probabilities, clock = LabelScores(len(places)), [], Clock()
    with evaluation_batches(source, checkpoint.preprocessing, batch=batch, workers=workers) as batches:
        for rows in batches:
            found = judged(forward(rows["image"]), rows["label"], rows["weight"])
            scores.add(found)
            odds = 1 / (1 + np.exp(-np.asarray(found["logit"], np.float64)))
            probabilities.append(np.where(rows["weight"][:, None] > 0, odds, np.nan))
            clock.add(len(rows["weight"]))
        skipped = dict(batches.corrupt)
    if not checkpoint.several_labels:
        told = "the weights do not say that an image may have several labels: probabilities are sigmoids of the logits"
        note = f"{note}; {told}" if note else told
    whole = np.concatenate(probabilities)[: len(source)]
    return EvaluationResult(scores, np.zeros(0, np.int64), skipped, places, note, whole, clock.rate)


class Clock:
    """Images a second after the first batch, whose time is that of compilation."""

    def __init__(self) -> None:
        self._start, self._images = 0.0, -1

    def add(self, images: int) -> None:
        """Counts a batch that is done."""
        if self._images < 0:
            self._start, self._images = time.perf_counter(), 0
        else:
            self._images += images

    @property
    def rate(self) -> float | None:
        """``None`` for a single batch."""
        return self._images / (time.perf_counter() - self._start) if self._images > 0 else None


def write_predictions(path: Path, result: EvaluationResult, checkpoint: Checkpoint, source: Source) -> None:
    """A table (CSV) with the image, its label, the predicted class and its probability of each row, in the order of the
    source; without a prediction where the image could not be read. Where an image may have several labels, these are
    separated by vertical bars, predicted are the classes of probability 1/2 or more, and a column for each class has
    its probability.

    Raises:
        VitportError: if it cannot be written.
    """
    several = isinstance(result.scores, LabelScores)
    rows = _rows_of_several(result, source) if several else _rows(result, checkpoint, source)
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image", "label", "predicted", *(source.classes if several else ("probability",))))
        table.writerows(rows)


def _rows(result: EvaluationResult, checkpoint: Checkpoint, source: Source) -> Iterator[tuple[str, ...]]:
    own = set(result.places.tolist())
    labels = checkpoint.labels or tuple(map(str, range(checkpoint.config.num_classes)))
    names = [*source.classes, *(name for at, name in enumerate(labels) if at not in own)]
    for at, (number, odds) in enumerate(zip(result.predicted, result.confidence, strict=True)):
        yield (*_named(source, at), *(("", "") if number < 0 else (names[number], f"{odds:.6f}")))


def _rows_of_several(result: EvaluationResult, source: Source) -> Iterator[tuple[str, ...]]:
    for at, odds in enumerate(result.confidence):
        chosen = "|".join(name for name, one in zip(source.classes, odds, strict=True) if one >= 0.5)
        yield (*_named(source, at), chosen, *("" if np.isnan(one) else f"{one:.6f}" for one in odds))


def _named(source: Source, at: int) -> tuple[str, str]:
    """An image's name, and that of its class."""
    try:
        name, label = about(source, at)
    except (VitportError, OSError):
        return f"{source.name}[{at}]", ""
    if isinstance(label, np.ndarray):
        return name, "|".join(source.classes[number] for number in np.flatnonzero(label))
    return name, source.classes[label]


def read_real_labels(path: str, source: Source) -> list[list[int]]:
    """ImageNet's reassessed labels (Beyer et al. 2020) of each image of a source.

    Args:
        path: path or address of ``real.json`` of https://github.com/google-research/reassessed-imagenet, which lists
            the labels of each validation image by its number.

    Raises:
        VitportError: if the file cannot be read as such, or the images are not named as ImageNet's.
    """
    try:
        lists = json.loads(read_text(path))
    except VitportError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise VitportError(f"{path} cannot be read as ReaL labels ({error}): download real.json again.") from error
    if not isinstance(lists, list) or not all(isinstance(labels, list) for labels in lists):
        raise VitportError(f"{path} does not hold a list of ReaL labels: download real.json again.")
    found = []
    for at in range(len(source)):
        name, _ = about(source, at)
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
