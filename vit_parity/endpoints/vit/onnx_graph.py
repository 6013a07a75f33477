"""The tokens between the blocks of an ONNX graph, run by onnxruntime: a result independent of this project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conversion.containers.file_checks import first_line
from vit_spec import VitportError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_BLOCK_NORM = re.compile(r"\.(\d+)\.(norm1|layernorm_before)\.weight$")
_FINAL_NORM = re.compile(r"(^|\.)(layer)?norm\.weight$")


def onnx_activations(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run a pre-norm ViT's graph and keep the tokens between its blocks.

    Args:
        path: a graph whose norms have the model's own names (timm's or Hugging Face's).
        images: (B, H, W, C), preprocessed; the graph is given (B, C, H, W) in float32.

    Returns:
        ``embed``, ``blocks.i`` and ``norm``, each (B, N, D), as :func:`vit_parity.torch_activations` names them.

    Raises:
        VitportError: if onnxruntime is missing, or the file is no graph with such norms.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise VitportError(
            f"Running {path} needs onnxruntime: install the extra, pip install 'vitport[onnx]'."
        ) from error
    try:
        model = onnx.load(path)
    except Exception as error:  # damaged protobuf and missing external data raise nearly anything
        raise VitportError(f"{path} is not a complete ONNX file ({first_line(error)}): give an .onnx file.") from error
    outputs = token_outputs(model.graph)
    del model.graph.output[:]  # onnxruntime computes only what is asked for
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs.values())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)  # (B, C, H, W)
    arrays = session.run(list(outputs.values()), {session.get_inputs()[0].name: inputs})
    return {name: np.asarray(array, np.float64) for name, array in zip(outputs, arrays, strict=True)}


def input_size(path: Path) -> tuple[int, int] | None:
    """Height and width of the images that a graph takes; ``None`` if it takes any."""
    import onnx

    shape = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape
    height, width = (axis.dim_value for axis in shape.dim[2:4])
    return (height, width) if height and width else None


def token_outputs(graph: GraphProto) -> dict[str, str]:
    """Our names of the intermediate results -> the graph's.

    The tokens between two blocks are the input of the later block's first norm. The norms are found by their weights,
    which keep their names when a model is exported.

    Raises:
        VitportError: if the graph has no such norms.
    """
    walk = _Walk(graph)
    names = [tensor.name for tensor in graph.initializer]
    blocks = {int(match[1]): name for name in names if (match := _BLOCK_NORM.search(name))}
    final = [name for name in names if _FINAL_NORM.search(name)]
    if not blocks or len(final) != 1:
        raise VitportError(
            "The ONNX graph has no norms under a ViT's names, so its blocks cannot be found: compare it through a "
            "capture."
        )
    before = [walk.norm_input(blocks[at]) for at in sorted(blocks)] + [walk.norm_input(final[0])]
    found = {"embed": before[0]} | {f"blocks.{at}": name for at, name in enumerate(before[1:])}
    return found | {"norm": walk.norm_output(final[0])}


class _Walk:
    """Follows a graph's edges."""

    def __init__(self, graph: GraphProto) -> None:
        self.producer = {output: node for node in graph.node for output in node.output}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def norm_input(self, weight: str) -> str:
        """The input of a LayerNorm, a single node or spelled out as ``(x - mean) / root * weight + bias``."""
        (node,) = self.consumers[weight]
        if node.op_type == "LayerNormalization":
            return node.input[0]
        quotient = self.producer[next(name for name in node.input if name != weight)]
        return self.producer[quotient.input[0]].input[0]

    def norm_output(self, weight: str) -> str:
        """The output of a LayerNorm, its bias included."""
        (node,) = self.consumers[weight]
        if node.op_type == "LayerNormalization":
            return node.output[0]
        (added,) = self.consumers[node.output[0]]
        return added.output[0]
