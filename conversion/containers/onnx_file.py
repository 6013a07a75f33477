"""An ONNX graph. Not all weights keep their names, so the graph itself tells which is which.

Exporters fold the transposed weight of a linear layer into an anonymous constant. It is recovered as the second factor
of the ``MatMul`` whose result is added to a named bias.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.containers.file_checks import first_line, unique
from conversion.containers.wall import walled
from conversion.source import Source
from conversion.tensors.table import BFLOAT16, Tensor, TensorTable
from vit_spec import VitportError

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

_POSITION_NAMES = {"embeddings.cls_token": "embeddings.position_embeddings", "cls_token": "pos_embed"}
"""Name of the class token → name of the position table beside it."""
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
"""The fields that hold a tensor's values where they are not raw bytes."""
_SHAPE_KEEPING = ("Reshape", "Transpose", "Resize", "Cast")
"""Operations between a stored position grid and the tokens that it is added to."""


def recognises(path: Path) -> bool:
    """A protobuf message that begins with an ONNX model's IR version and producer."""
    with path.open("rb") as file:
        start = file.read(3)
    return path.suffix == ".onnx" or (start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x3a", b"\x42"))


@walled("ONNX file")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open a graph of any exporter whose linear layers have named biases."""
    del weights_key  # a graph holds one set of weights
    try:
        import onnx
    except ImportError as error:
        raise VitportError(f"Reading {path} needs onnx: install the extra, pip install 'vitport[onnx]'.") from error
    try:
        model = onnx.load(path)
        initializers = unique([(tensor.name, tensor) for tensor in model.graph.initializer])
        for tensor in initializers.values():
            _check(tensor)
        graph = Graph(list(model.graph.node), initializers)
        table, notes = graph.named_weights()
        facts = graph.facts(table)
    except Exception as error:  # damaged protobuf and missing external data raise nearly anything
        raise VitportError(
            f"{path} is not a complete ONNX file ({first_line(error)}): fetch or export it again."
        ) from error
    if not initializers:
        raise VitportError(f"{path} is an ONNX file without weights: export the model with its parameters.")
    return Source(path, "ONNX graph", table, (path,), facts=facts, notes=notes)


class Graph:
    """What a reader asks of an ONNX graph."""

    def __init__(self, nodes: list[NodeProto], initializers: dict[str, TensorProto]) -> None:
        self.nodes = nodes
        self.initializers = initializers
        self.producer = {output: node for node in nodes for output in node.output}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def named_weights(self) -> tuple[TensorTable, tuple[str, ...]]:
        """Every weight under its name before the export, in PyTorch's axes."""
        tensors: dict[str, Tensor] = {}
        traced = self._linear_weights() | self._position_table(tensors)
        left: list[str] = []
        for name, initializer in self.initializers.items():
            if name in traced:
                if traced[name]:
                    tensors[traced[name]] = _transposed(initializer)
            elif name.startswith("onnx::") and len(initializer.dims) < 2:
                left.append(name)
            else:
                tensors[name] = _tensor(initializer)
        notes = (f"set aside {len(left)} anonymous constants of the graph",) if left else ()
        return TensorTable(tensors), notes

    def facts(self, table: TensorTable) -> dict[str, Any]:
        """What the graph shows and the weights do not: epsilon, activation, heads, resize method."""
        epsilons = {_attribute(node, "epsilon", 1e-5) for node in self.nodes if node.op_type == "LayerNormalization"}
        roots = [node for node in self.nodes if node.op_type == "Sqrt"]
        epsilons |= {value for node in roots for value in self._added_constant(self.producer.get(node.input[0]))}
        widths = {shape[0] for name, shape in table.shapes.items() if name.endswith("norm1.weight")}
        tails = [self._constant_tail(node.input[1]) for node in self.nodes if node.op_type == "Reshape"]
        heads = {tail[0] for tail in tails if len(tail) == 2 and tail[0] * tail[1] in widths}
        kinds = {node.op_type for node in self.nodes}
        facts: dict[str, Any] = {}
        if len(epsilons) == 1:
            facts["norm_eps"] = float(str(np.float32(epsilons.pop())))  # the shortest decimal of the float32
        if len(heads) == 1:
            facts["num_heads"] = heads.pop()
        if "Erf" in kinds:
            facts["activation"] = "gelu"
        resizes = [node for node in self.nodes if node.op_type == "Resize"]
        if len(resizes) == 1 and _is_torch_bicubic(resizes[0]):
            facts["pos_embed_resize"] = "torch-bicubic"
        return facts

    def _linear_weights(self) -> dict[str, str]:
        """Anonymous factor of a MatMul → name of the weight whose bias is added to the product."""
        names: dict[str, str] = {}
        for node in self.nodes:
            if node.op_type != "MatMul" or node.input[1] not in self.initializers:
                continue
            for following in self.consumers.get(node.output[0], []):
                biases = [name for name in following.input if name.endswith(".bias") and name in self.initializers]
                if following.op_type == "Add" and biases:
                    names[node.input[1]] = biases[0].removesuffix("bias") + "weight"
        return names

    def _position_table(self, tensors: dict[str, Tensor]) -> dict[str, str]:
        """Put together a position table that was split for resizing; returns the constants that this used up."""
        for node in self.nodes:
            if node.op_type != "Concat" or len(node.input) != 2:
                continue
            prefix, grid = node.input[0], self._stored_source(node.input[1])
            if prefix in self.initializers and grid is not None and prefix.startswith("onnx::"):
                class_token = next((name for name in self.initializers if name.endswith("cls_token")), "")
                for ending, position in _POSITION_NAMES.items():
                    if class_token.endswith(ending):
                        parts = [self.initializers[prefix], self.initializers[grid]]
                        tensors[class_token.removesuffix(ending) + position] = _concatenated(parts)
                        return {prefix: "", grid: ""}
        return {}

    def _stored_source(self, name: str) -> str | None:
        while name in self.producer and self.producer[name].op_type in _SHAPE_KEEPING:
            name = self.producer[name].input[0]
        return name if name in self.initializers else None

    def _constant(self, name: str) -> np.ndarray | None:
        from onnx import numpy_helper

        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        node = self.producer.get(name)
        if node is not None and node.op_type == "Constant":
            return numpy_helper.to_array(node.attribute[0].t)
        return None

    def _added_constant(self, node: NodeProto | None) -> list[float]:
        if node is None or node.op_type != "Add":
            return []
        values = [self._constant(name) for name in node.input]
        return [float(value.item()) for value in values if value is not None and value.size == 1]

    def _constant_tail(self, name: str) -> tuple[int, ...]:
        """The last two entries of a shape, where they are constants."""
        node = self.producer.get(name)
        values = (
            [self._constant(part) for part in node.input[-2:]] if node is not None and node.op_type == "Concat" else []
        )
        if not values and (whole := self._constant(name)) is not None:
            values = [np.array(part) for part in whole.reshape(-1)[-2:]] if whole.size == 4 else []
        return tuple(int(value.item()) for value in values if value is not None and value.size == 1)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def _is_torch_bicubic(node: NodeProto) -> bool:
    return (
        _attribute(node, "mode", b"nearest") == b"cubic"
        and _attribute(node, "cubic_coeff_a", -0.75) == -0.75
        and _attribute(node, "coordinate_transformation_mode", b"half_pixel") in (b"half_pixel", b"pytorch_half_pixel")
        and not _attribute(node, "antialias", 0)
    )


def _check(initializer: TensorProto) -> None:
    """Refuse a tensor with fewer or more values than its shape says: a huge shape alone makes a small file."""
    size, dtype = math.prod(initializer.dims), _dtype(initializer)
    if min(initializer.dims, default=0) < 0:
        raise ValueError(f"{initializer.name} has shape {tuple(initializer.dims)}")
    if initializer.HasField("raw_data"):
        found = len(initializer.raw_data) // dtype.itemsize
    else:
        found = max(len(getattr(initializer, field)) for field in _FIELDS)
    if found != size:
        raise ValueError(f"{initializer.name} has shape {tuple(initializer.dims)} and {found} numbers")


def _array(initializer: TensorProto) -> np.ndarray:
    from onnx import numpy_helper

    return numpy_helper.to_array(initializer)


def _dtype(initializer: TensorProto) -> np.dtype:
    from onnx import TensorProto as Proto
    from onnx import helper

    return (
        BFLOAT16 if initializer.data_type == Proto.BFLOAT16 else helper.tensor_dtype_to_np_dtype(initializer.data_type)
    )


def _tensor(initializer: TensorProto) -> Tensor:
    return Tensor(tuple(initializer.dims), _dtype(initializer), lambda: _array(initializer))


def _transposed(initializer: TensorProto) -> Tensor:
    return Tensor(
        tuple(initializer.dims)[::-1], _dtype(initializer), lambda: np.ascontiguousarray(_array(initializer).T)
    )


def _concatenated(parts: list[TensorProto]) -> Tensor:
    first, second = (tuple(part.dims) for part in parts)
    shape = (first[0], first[1] + second[1], *first[2:])
    return Tensor(shape, _dtype(parts[0]), lambda: np.concatenate([_array(part) for part in parts], axis=1))
