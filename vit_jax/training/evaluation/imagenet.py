"""Which of a model's 1,000 classes are those of ImageNet's other test sets: V2, A, R and Sketch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np

CLASSES = 1000


@cache
def wordnet_ids() -> tuple[str, ...]:
    """Of the 1,000 classes, in the order of the models' heads."""
    return tuple(line.split()[0] for line in _lines())


@cache
def subsets() -> dict[str, frozenset[str]]:
    """Name of a test set → the WordNet ids of its 200 classes, among which alone it is predicted: ImageNet-A
    (Hendrycks et al. 2021, Natural adversarial examples) and ImageNet-R (Hendrycks et al. 2021, The many faces of
    robustness), as both papers' code evaluates."""
    return {f"ImageNet-{letter}": frozenset(line.split()[0] for line in _lines() if letter in line.split()[1:])
            for letter in "AR"}  # fmt: skip


def imagenet_places(folders: Sequence[str], labels: Sequence[str] | None) -> tuple[np.ndarray, str, bool] | None:
    """For a model of 1,000 classes: its number of each folder, how they belong together, and whether only these are
    predicted. ``None`` where the folders are not ImageNet's.

    Args:
        folders: names of a test set's classes: WordNet ids; or the numbers 0 to 999, as ImageNet-V2 (Recht et al. 2019)
            has them, which sort as text.
        labels: the model's names of its classes.
    """
    numbers = {name: at for at, name in enumerate(wordnet_ids())}
    if all(name in numbers for name in folders):
        places = np.array([numbers[name] for name in folders], np.int32)
        name = next((name for name, ids in subsets().items() if ids == set(folders)), None)
        if name is not None:
            return places, f"{name}: predictions among its {len(folders)} classes alone, as its authors evaluate", True
        few = "" if len(folders) == CLASSES else f"; {len(folders)} of {CLASSES}, and all can be predicted"
        return places, f"folders are WordNet ids, classes in ImageNet's order{few}", False
    by_number = sorted(folders, key=lambda name: (len(name), name)) == [str(at) for at in range(CLASSES)]
    if by_number and (labels is None or re.search(r"\btench\b", labels[0])):
        told = "folders 0 to 999 are the model's numbers of its classes, as in ImageNet-V2"
        return np.array([int(name) for name in folders], np.int32), told, False
    return None


@cache
def _lines() -> tuple[str, ...]:
    return tuple((files("vit_jax.training.evaluation") / "assets" / "imagenet.txt").read_text().split("\n")[:CLASSES])
