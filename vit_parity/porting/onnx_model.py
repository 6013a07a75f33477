"""An ONNX graph: every node is a stage, named after its first output. Nothing of it can be replaced or widened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conversion.containers.file_checks import first_line
from vit_parity.porting.stages import Key, Observed, Parts
from vit_spec import VitportError


class OnnxModel:
    """A graph with its inputs.

    Args:
        model: path of a ``.onnx`` file, or an ``onnx.ModelProto``.
        args: the graph's inputs in its own order.
        kwargs: or by name.
        title: name of the run in reports.
    """

    def __init__(self, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], title: str) -> None:
        import onnx
        import onnxruntime

        self.title = title
        self.facts = {"framework": f"onnxruntime {onnxruntime.__version__}", "device": "cpu"}
        graph = onnx.load(model) if isinstance(model, (str, Path)) else model
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        self._kinds = {out: node.op_type for node in copy.graph.node for out in node.output if out}
        there = {output.name for output in copy.graph.output}
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._kinds if name not in there)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # keep every node
        try:
            self._session = onnxruntime.InferenceSession(copy.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:
            raise VitportError(f"{title}: onnxruntime cannot run the graph ({first_line(error)}).") from error
        names = [it.name for it in self._session.get_inputs()]
        self._given = dict(zip(names, map(np.asarray, args), strict=False)) | dict(kwargs)

    def run(
        self, *, wide: bool = False, shake: float = 0.0, forced: Mapping[Key, np.ndarray] | None = None
    ) -> Observed:
        """As :class:`vit_parity.porting.stages.Model` says.

        Raises:
            VitportError: for more than a plain run.
        """
        if wide or shake or forced:
            raise VitportError(f"{self.title} is a graph: it runs as it is only.")
        try:
            values = self._session.run(list(self._kinds), self._given)
        except Exception as error:
            raise VitportError(f"{self.title} fails on these inputs ({first_line(error)}).") from error
        return Observed({(name, ">0"): np.asarray(value) for name, value in zip(self._kinds, values, strict=True)},
                        self._kinds)  # fmt: skip

    def parts(self, stage: str) -> Parts:
        """Nothing is known of a node."""
        return Parts()
