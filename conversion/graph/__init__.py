"""Graphs of operations, and the models that they compute.

A graph is followed from the image to its outputs (:mod:`conversion.graph.trace`), read as layers
(:mod:`conversion.graph.layers`), and matched with what each family of models looks like: a folder for each family.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conversion.graph import vit
from conversion.graph.expression import forget_numbers
from conversion.graph.graph import Graph, GraphInput, NotUnderstoodError
from conversion.graph.reading import Reading
from conversion.graph.trace import trace
from vit_spec import VitportError

FAMILIES = {"vit": vit.read}
"""Family → what reads its models in a trace, or raises ``NotUnderstoodError``."""
_MOST_SIZES = 8
"""Image sizes that are tried where a graph takes any."""


@dataclass(frozen=True)
class GraphReading:
    """A model that was found in a graph."""

    family: str
    model: Reading
    image: str
    """Name of the input."""
    shape: tuple[int, ...]
    """Shape of the images that the graph was followed with."""


def read_graph(graph: Graph, upto: str | None = None) -> GraphReading:
    """Find the model that a graph computes.

    Args:
        graph: what to read.
        upto: name of a value to end at, instead of the graph's outputs.

    Raises:
        VitportError: with the node that is not what any family has there.
    """
    image = _image(graph)
    first: VitportError | None = None
    for shape in _shapes(graph, image):
        try:
            return _read(graph, image, shape, upto)
        except VitportError as error:  # of another size the graph may be understood
            first = first or error
        finally:
            forget_numbers()
    raise first or VitportError("The graph's image has an unknown size, and no table of positions shows one.")


def _read(graph: Graph, image: GraphInput, shape: tuple[int, ...], upto: str | None) -> GraphReading:
    """The first family whose models look like the graph; the first family's error if none does."""
    found = trace(graph, image.name, shape, upto)
    first: NotUnderstoodError | None = None
    for family, read in FAMILIES.items():
        try:
            return GraphReading(family, read(found), image.name, shape)
        except NotUnderstoodError as error:
            first = first or error
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
    """Shapes of images to follow the graph with: its own, else those for which it has tables of positions."""
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
    """Squares whose patches, with up to nine tokens in front, are as many as a constant has rows; the largest first."""
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
