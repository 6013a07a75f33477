"""Weights on labelled pictures, apart from any run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import vit_jax
from conversion import Checkpoint
from vit_jax.inference.inference import Inference
from vit_jax.inference.slices import sliced
from vit_jax.inference.spread import Spread
from vit_jax.layers.attention import attend_fused, set_attention
from vit_jax.params import get_params
from vit_jax.training.data import Source, evaluation_batches
from vit_jax.training.evaluation.scores import Scores, make_judge
from vit_spec import VitportError


@dataclass(frozen=True)
class Evaluated:
    """What :func:`evaluate` finds."""

    scores: Scores
    predicted: np.ndarray
    """(pictures,): the likeliest class of each picture of the source, -1 where it could not be read."""
    skipped: dict[str, str] = field(default_factory=dict)


def evaluate(checkpoint: Checkpoint, source: Source, *, batch: int, workers: int = 0) -> Evaluated:
    """Every picture of the source once, as the weights' own preprocessing cuts it, shared out among this process's
    devices (:class:`vit_jax.inference.spread.Spread`).

    Raises:
        VitportError: if the model tells another number of classes apart than the pictures have, or the same in another
            order.
    """
    classes = checkpoint.config.num_classes
    if classes != len(source.classes):
        raise VitportError(
            f"The model tells {classes} classes apart and {source.name} has {len(source.classes)}: take weights that "
            "were trained on these classes, or --knn and --linear-probe, which need no head."
        )
    names = checkpoint.labels or source.classes
    if sorted(names) == sorted(source.classes) and tuple(names) != source.classes:
        raise VitportError(
            f"The model has the classes of {source.name} in another order, {', '.join(names[:3])}, … instead of "
            f"{', '.join(source.classes[:3])}, …: give a classes.txt in the model's order beside numbered labels, or "
            "weights that were trained on these pictures."
        )
    model = vit_jax.create_model(weights=checkpoint)
    set_attention(model, attend_fused)
    judge = Spread(make_judge(sliced(Inference(model)), checkpoint.preprocessing), get_params(model), batch)
    scores, predicted = Scores(classes), []
    with evaluation_batches(source, checkpoint.preprocessing, batch=batch, workers=workers) as batches:
        for rows in batches:
            judged = {name: np.asarray(array) for name, array in judge(dict(rows)).items()}
            scores.add(judged)
            predicted.append(np.where(judged["weight"] > 0, judged["predicted"], -1))
        skipped = dict(batches.corrupt)
    return Evaluated(scores, np.concatenate(predicted)[: len(source)], skipped)


def read_real_labels(path: Path, source: Source) -> list[list[int]]:
    """ImageNet's reassessed labels (Beyer et al. 2020) of each picture of a source.

    Args:
        path: ``real.json`` of https://github.com/google-research/reassessed-imagenet, a list for each validation
            picture by its number.

    Raises:
        VitportError: if the file is none, or the pictures are not ImageNet's by their names.
    """
    try:
        lists = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise VitportError(f"{path} is no list of ReaL labels ({error}): fetch real.json again.") from error
    if not isinstance(lists, list) or not all(isinstance(labels, list) for labels in lists):
        raise VitportError(f"{path} is no list of ReaL labels: fetch real.json again.")
    found = []
    for at in range(len(source)):
        name = source[at].name
        number = re.search(r"val_(\d{8})", name)
        if number is None or not 1 <= int(number.group(1)) <= len(lists):
            raise VitportError(f"{name} is no picture that {path} knows: names end as in ILSVRC2012_val_00000001.JPEG.")
        found.append(lists[int(number.group(1)) - 1])
    if not any(found):
        raise VitportError(f"{path} has no label for any picture of {source.name}: give ImageNet's validation set.")
    return found


def real_accuracy(evaluated: Evaluated, labels: Sequence[Sequence[int]]) -> float:
    """Accuracy on :func:`read_real_labels`: right is whatever is in a picture's list; those with an empty one, and
    those that could not be read, do not count."""
    counted = [(int(p), allowed) for p, allowed in zip(evaluated.predicted, labels, strict=True) if allowed and p >= 0]
    return sum(p in allowed for p, allowed in counted) / len(counted) if counted else float("nan")
