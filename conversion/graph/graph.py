"""A graph of operations as plain data, whatever file it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_spec import VitportError


@dataclass(frozen=True)
class Constant:
    """An array that is stored in the file and read when it is used."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Node:
    """One operation on values. Every value has a name, and only one node computes it."""

    op: str
    """``Add``; with its domain if that is not ONNX's own, ``com.microsoft::Gelu``."""
    inputs: tuple[str, ...]
    """Names of values; an optional one that is left out is empty."""
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Numbers, text, tuples of them, arrays, and for control flow a :class:`Graph`."""
    name: str = ""

    @property
    def place(self) -> str:
        """The node in words, for messages."""
        name = self.name or next(iter(self.outputs), "")
        return f"node {name[:80]!r} ({self.op})"


@dataclass(frozen=True)
class GraphInput:
    """An input of the graph."""

    name: str
    shape: tuple[int | None, ...]
    """``None`` for a side of any length."""
    floating: bool
    """Whether it holds floats, as images do."""


@dataclass(frozen=True)
class Function:
    """A named group of operations, into which exporters put the parts of a layer."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Attributes that a call may leave out."""


@dataclass(frozen=True)
class Graph:
    """Operations in the order in which they are computed."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    opset: int
    """Version of ONNX's own operations."""
    functions: Mapping[str, Function] = field(default_factory=dict)
    """Operation (see :attr:`Node.op`) → what it stands for."""
    nbytes: int = 0
    """Bytes of its files, which limit the memory for reading it."""


class NotUnderstoodError(VitportError):
    """The graph is not the expected model; another reading may still fit."""


class RecognisedError(NotUnderstoodError):
    """The graph is a model of the expected family, but something in it is not understood."""
