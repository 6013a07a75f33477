"""Graphs of operations, and the models that they compute.

A graph is evaluated symbolically (:mod:`conversion.graph.trace`), read as layers (:mod:`conversion.graph.layers`), and
matched with the models of each family, which has a folder of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conversion.graph import swin, vit
from conversion.graph.expression import forget_numbers
from conversion.graph.graph import Graph, GraphInput, NotUnderstoodError, RecognisedError
from conversion.graph.reading import Reading
from conversion.graph.trace import trace
from vit_spec import VitportError

FAMILIES = {"vit": vit.read, "swin": swin.read}
"""Family → the function that finds its model in a trace, or raises ``NotUnderstoodError``."""
_MOST_SIZES = 8
"""Number of image sizes to try if a graph takes images of any size."""


@dataclass(frozen=True)
class GraphReading:
    """A model that was found in a graph."""

    family: str
    model: Reading
    image: str
    """Name of the input."""
    shape: tuple[int, ...]
    """Shape of the images with which the graph was evaluated."""


def read_graph(graph: Graph, upto: str | None = None) -> GraphReading:
    """Find the model that a graph computes.

    Args:
        graph: what to read.
        upto: name of a value to end at, instead of the graph's outputs.

    Raises:
        VitportError: if it is not a model of any family; the message names the first node that does not fit.
    """
    image = _image(graph)
    first: VitportError | None = None
    for shape in _shapes(graph, image):
        try:
            return _read(graph, image, shape, upto)
        except VitportError as error:  # it may be understood at another size
            first = first or error
        finally:
            forget_numbers()
    raise first or VitportError("The graph's image has an unknown size, and no position table shows it.")


def _read(graph: Graph, image: GraphInput, shape: tuple[int, ...], upto: str | None) -> GraphReading:
    """The model of the first family that fits; if none fits, raises the error of the family that recognised it."""
    found = trace(graph, image.name, shape, upto)
    first: NotUnderstoodError | None = None
    for family, read in FAMILIES.items():
        try:
            return GraphReading(family, read(found), image.name, shape)
        except NotUnderstoodError as error:
            first = error if first is None or isinstance(error, RecognisedError) else first
    assert first is not None
    raise first


def _image(graph: Graph) -> GraphInput:
    """The input that is an image."""
    given = [it for it in graph.inputs if it.name not in graph.constants]
    images = sorted((it for it in given if len(it.shape) == 4), key=lambda it: not it.floating)
    if not images:
        inputs = ", ".join(f"{it.name[:40]} {tuple(side or '?' for side in it.shape)}" for it in given[:4]) or "none"
        raise VitportError(
            f"The graph takes no images, (batch, channels, height, width): its inputs are {inputs}. Export it with "
            "its image input."
        )
    return images[0]


def _shapes(graph: Graph, image: GraphInput) -> Iterator[tuple[int, ...]]:
    """Shapes of images to evaluate the graph with: its own, else those that match its position tables."""
    batch, *sides = image.shape
    if all(side is not None for side in sides):
        yield (batch or 1, *(side or 1 for side in sides))
        return
    kernel = next((shape for shape in _kernels(graph)), None)
    if kernel is None:
        return
    channels, patch = kernel[1], kernel[2]
    last = sides[2] == channels and sides[0] != channels
    for height, width in list(_sizes(graph, kernel[0], patch))[:_MOST_SIZES]:
        usual = (height, width, channels) if last else (channels, height, width)
        yield (batch or 1, *(known or side for known, side in zip(sides, usual, strict=True)))


def _kernels(graph: Graph) -> Iterator[tuple[int, ...]]:
    for node in graph.nodes:
        if node.op == "Conv" and len(node.inputs) > 1 and node.inputs[1] in graph.constants:
            shape = graph.constants[node.inputs[1]].shape
            if len(shape) == 4 and min(shape) > 0:
                yield shape


def _sizes(graph: Graph, width: int, patch: int) -> Iterator[tuple[int, int]]:
    """Square image sizes, largest first, that match the rows of some constant, with up to nine prefix tokens."""
    shapes = [it.shape for it in graph.constants.values()]
    shapes += [
        value.shape for node in graph.nodes for value in node.attributes.values() if isinstance(value, np.ndarray)
    ]
    rows = {shape[-2] for shape in shapes if len(shape) in (2, 3) and shape[-1] == width and shape[-2] > 1}
    known: set[int] = set()
    for count in sorted(rows, reverse=True):
        for prefix in range(10):
            side = int(max(count - prefix, 0) ** 0.5 + 0.5)
            if side and side * side == count - prefix and side not in known:
                known.add(side)
                yield side * patch, side * patch
