"""An ONNX graph: read by what it computes, not by names. The names of its values change nothing."""

from __future__ import annotations

from pathlib import Path

from conversion.containers.onnx.proto import graph_of, parse
from conversion.containers.wall import walled
from conversion.graph import GraphReading, read_graph
from conversion.graph.graph import NotUnderstoodError
from conversion.source import Source
from conversion.tensors.table import TensorTable
from vit_spec import VitportError

__all__ = ["read", "read_model", "recognises"]


def recognises(path: Path) -> bool:
    """By its content, or by a name that says so."""
    return path.suffix == ".onnx" or begins_as_one(path)


def begins_as_one(path: Path) -> bool:
    """A protobuf message that begins with an ONNX model's IR version and producer."""
    with path.open("rb") as file:
        start = file.read(3)
    return start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x3a", b"\x42")


@walled("ONNX file")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open a graph of any exporter. Its tensors get their canonical names.

    Args:
        path: the file; weights may lie in other files of its folder.
        weights_key: a value of the graph to read up to, instead of its outputs.

    Raises:
        VitportError: if the file is damaged, or computes what is not understood; the message names the node.
    """
    found, files = read_model(path, weights_key)
    model = found.model
    return Source(path, "ONNX graph", TensorTable(model.tensors), files, facts=model.facts, notes=model.notes,
                  format=f"onnx-{found.family}")  # fmt: skip


def read_model(path: Path, weights_key: str | None = None) -> tuple[GraphReading, tuple[Path, ...]]:
    """The model in a graph, and the files that hold it."""
    model = parse(path)
    try:
        graph, files = graph_of(model, path)
        return read_graph(graph, weights_key), files
    except NotUnderstoodError as error:
        part = "" if weights_key else " A part of the graph is read by the name of its last value (--weights-key)."
        raise VitportError(f"{path}: {error}{part}") from error
    except VitportError as error:
        raise VitportError(f"{path}: {error}") from error
