"""Which class of a model is which class of a data set: by name where both have names, by number where one has none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vit_jax.training.data import Source
from vit_jax.training.evaluation.imagenet import CLASSES, imagenet_places
from vit_spec import VitportError


class Places(NamedTuple):
    """Which classes of a model a source has."""

    numbers: np.ndarray
    """The model's number of each of the source's, int32."""
    note: str
    """How they belong together, where they do not simply agree."""
    alone: bool = False
    """Whether only these can be predicted."""


def places_of(source: Source, labels: Sequence[str] | None, classes: int) -> Places:
    """The model's number of each class of a source, and how they belong together where they do not agree.

    Names are the same if they differ in case, spaces, hyphens and underscores alone; of several names for one class,
    separated by commas, one is enough. Folders named as ImageNet's test sets name theirs are classes of any model of
    1,000, unless its own names are the same.

    Args:
        labels: the model's names of its classes.
        classes: the number of the model's classes.

    Raises:
        VitportError: for a class of the source that the model does not have; without names, for different numbers of
            classes.
    """
    known = _numbers(labels or ())
    places = [known.get(_plain(name), -1) for name in source.classes]
    if classes == CLASSES and -1 in places and (found := imagenet_places(source.classes, labels)):
        return Places(*found)
    if labels is None or (-1 in places and (_are_numbers(labels) or _are_numbers(source.classes))):
        if classes != len(source.classes):
            raise VitportError(
                f"The model has {classes} classes, and {source.name} has {len(source.classes)}: give weights that were "
                "trained on these classes, or use --knn or --linear-probe, which need no head."
            )
        side = "the weights" if labels is None or _are_numbers(labels) else source.name
        verb = "have" if side == "the weights" else "has"
        return Places(
            np.arange(classes, dtype=np.int32),
            f"{side} {verb} no names of classes, so classes are compared by number{_order(source.classes)}",
        )
    absent = [name for name, place in zip(source.classes, places, strict=True) if place < 0]
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise VitportError(
            f"{source.name} has the classes {', '.join(absent[:3])}{more}, which the model does not have; it has "
            f"{', '.join(labels[:3])}, …: rename them, give numbered labels with a classes.txt in the model's order, "
            "or use --knn or --linear-probe, which need no head."
        )
    if len(set(places)) < len(places):
        raise VitportError(f"{source.name} has two classes that are one of the model's: merge their folders.")
    if len(places) < classes:
        note = f"{source.name} has {len(places)} of the model's {classes} classes, by name; all can be predicted"
    else:
        note = "" if places == list(range(classes)) else f"matched the classes of {source.name} by name"
    return Places(np.array(places, np.int32), note)


def may_be_same(labels: Sequence[str] | None, classes: Sequence[str]) -> bool:
    """Whether a model's classes can be those of data, in the same order: the names are the same, or the data or the
    model have none. Names of the data that the model calls by numbers are others.

    Args:
        labels: the model's names of its classes.
        classes: the data's.
    """
    if labels is None or _are_numbers(classes):
        return labels is None or len(labels) == len(classes)
    return [_plain(name) for name in labels] == [_plain(name) for name in classes]


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether names are placeholders: ``0``, ``LABEL_0`` or ``class 00`` for the first."""
    found = (re.fullmatch(r"((label|class)[\W_]*)?(\d{1,9})", name, re.IGNORECASE | re.ASCII) for name in names)
    return all(match is not None and int(match[3]) == at for at, match in enumerate(found))


def _order(names: Sequence[str]) -> str:
    """What follows from sorting numbers as text, which puts 10 before 2."""
    numbers = [int(name) for name in names if re.fullmatch(r"\d{1,9}", name, re.ASCII)]
    is_mixed = len(numbers) == len(names) and numbers != sorted(numbers)
    return f", in the order {', '.join(names[:4])}, …, as ImageFolder of torchvision numbers them" if is_mixed else ""


def _numbers(labels: Sequence[str]) -> dict[str, int]:
    """Plain name → number, also of one of several names for a class; names of two classes are left out."""
    whole, parts = defaultdict[str, set[int]](set), defaultdict[str, set[int]](set)
    for at, name in enumerate(labels):
        whole[_plain(name)].add(at)
        for part in name.split(","):
            parts[_plain(part)].add(at)
    return {name: min(at) for found in (parts, whole) for name, at in found.items() if len(at) == 1}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
