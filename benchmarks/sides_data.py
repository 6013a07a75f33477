"""The sides of the input pipeline: ``benchmarks.input_pipeline``'s, each in a process of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from benchmarks import input_pipeline
from benchmarks.side import Side
from vit_jax.training.data import Source, open_source

WORKERS = (0, 2)


def ours(folder: str) -> Side:
    """Our training stream over a folder of images; parts are called by their number of workers."""
    source = _source(folder)
    first = itertools.count()  # each turn reads batches of its own
    return _side(lambda workers: input_pipeline.ours(source, workers, next(first)).images_per_second)


def shards(path: str, size: int, small: bool) -> Side:
    """The same over tar shards, at this size.

    Args:
        small: whether an epoch is so short that a turn needs several.
    """
    source = _source(path)
    first = itertools.count()
    epochs = 10 if small else 1
    return _side(lambda workers: input_pipeline.ours(source, workers, next(first), size, epochs).images_per_second)


def plain(folder: str) -> Side:
    """A loop of Pillow."""
    source = _source(folder)
    files = [source[at].name for at in range(len(source))]
    return _side(lambda workers: input_pipeline.plain(files, max(workers, 1)).images_per_second)


def _side(rate: Callable[[int], float]) -> Side:
    def runs(workers: int) -> Callable[[int], float]:
        return lambda count: sum(1 / rate(workers) for _ in range(count))

    return Side({str(workers): runs(workers) for workers in WORKERS})


def _source(folder: str) -> Source:
    source = open_source(folder, "train")
    assert source is not None  # images were written into it
    return source
