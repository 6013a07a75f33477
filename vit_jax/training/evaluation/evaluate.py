"""Evaluates weights on labelled images, outside any run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from conversion import Checkpoint
from vit_jax.inference import compile_inference
from vit_jax.training.data import Source, evaluation_batches
from vit_jax.training.evaluation.scores import Scores, judge
from vit_spec import VitportError


@dataclass(frozen=True)
class EvaluationResult:
    """What :func:`evaluate` returns."""

    scores: Scores
    predicted: np.ndarray
    """(images,): the most probable class of each image of the source, -1 where it could not be read."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Images that could not be read, with the reasons."""


def evaluate(checkpoint: Checkpoint, source: Source, *, batch: int, workers: int = 0) -> EvaluationResult:
    """Classifies every image of the source once, with the weights' own preprocessing, on all devices of this process.

    Args:
        batch: images at a time.
        workers: processes that decode; 0: threads.

    Raises:
        VitportError: if the model and the source have different classes, or the same in another order.
    """
    classes = checkpoint.config.num_classes
    if classes != len(source.classes):
        raise VitportError(
            f"The model has {classes} classes, and {source.name} has {len(source.classes)}: give weights that were "
            "trained on these classes, or use --knn or --linear-probe, which need no head."
        )
    names = checkpoint.labels or source.classes
    if sorted(names) == sorted(source.classes) and tuple(names) != source.classes:
        raise VitportError(
            f"The model has the classes of {source.name} in another order, {', '.join(names[:3])}, … instead of "
            f"{', '.join(source.classes[:3])}, …: give numbered labels with a classes.txt in the model's order, or "
            "weights that were trained on these images."
        )
    forward, judged = compile_inference(checkpoint, batch), jax.jit(judge)
    scores, predicted = Scores(classes), []
    with evaluation_batches(source, checkpoint.preprocessing, batch=batch, workers=workers) as batches:
        for rows in batches:
            found = judged(forward(rows["image"]), rows["label"], rows["weight"])
            scores.add(found)
            predicted.append(np.where(rows["weight"] > 0, np.asarray(found["predicted"]), -1))
        skipped = dict(batches.corrupt)
    return EvaluationResult(scores, np.concatenate(predicted)[: len(source)], skipped)


def read_real_labels(path: Path, source: Source) -> list[list[int]]:
    """ImageNet's reassessed labels (Beyer et al. 2020) of each image of a source.

    Args:
        path: ``real.json`` of https://github.com/google-research/reassessed-imagenet, which lists the labels of each
            validation image by its number.

    Raises:
        VitportError: if the file cannot be read as such, or the images are not named as ImageNet's.
    """
    try:
        lists = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise VitportError(f"{path} cannot be read as ReaL labels ({error}): download real.json again.") from error
    if not isinstance(lists, list) or not all(isinstance(labels, list) for labels in lists):
        raise VitportError(f"{path} holds no list of ReaL labels: download real.json again.")
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
