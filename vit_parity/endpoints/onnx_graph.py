"""The stages of a model in an ONNX graph, computed by running the graph itself: a result independent of this project.

Which values of the graph are the stages is taken from its reading. A wrong one would not agree with the model, and the
graph's own output is compared whatever was read before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.containers.file_checks import first_line
from conversion.containers.onnx import read_model
from conversion.containers.onnx.proto import parse
from vit_parity.endpoints.vit.onnx_float32 import in_float32
from vit_spec import VitportError

if TYPE_CHECKING:
    from onnx import ModelProto

_Run = Callable[[np.ndarray], list[np.ndarray]]
_Session = Callable[[list[str], dict[str, np.ndarray]], Any]
_FOLDER = "session.model_external_initializers_file_folder_path"
"""onnxruntime's option for graphs given as bytes whose weights lie in files."""
_DTYPES = {1: np.float32, 10: np.float16, 11: np.float64, 2: np.uint8}
"""``TensorProto.DataType`` of an image."""


@dataclass(frozen=True)
class OnnxGraph:
    """A graph that can be run.

    Args:
        path: the file, whose weights may lie in others of its folder.
        weights_key: the value that it was read up to.
    """

    path: Path
    weights_key: str | None = None

    def activations(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the graph on each image.

        Args:
            images: (B, H, W, C), preprocessed; of the height and width that the graph takes.

        Returns:
            As far as the graph computes them under names of their own: ``embed``, each block and ``norm``, (B, N, D),
            and ``head``, (B, K), in float64.

        Raises:
            VitportError: if neither onnxruntime nor onnx can run the graph, or it computes no model.
        """
        found, _ = read_model(self.path, self.weights_key)
        stages = found.model.stages
        run = self._runner(stages)
        batch = found.shape[0]
        shape = images.shape[1:] if found.model.channels_last else (images.shape[3], *images.shape[1:3])
        if not found.model.channels_last:
            images = images.transpose(0, 3, 1, 2)
        results: list[list[np.ndarray]] = []
        for image in images:  # a graph may have been exported for a single one
            given = np.ascontiguousarray(np.broadcast_to(image, (batch, *shape)))
            results.append([array[:1] for array in run(given)])
        return {
            stage: _as_tokens(np.concatenate(arrays).astype(np.float64))
            for stage, arrays in zip(stages, zip(*results, strict=True), strict=True)
        }

    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the graph was followed with."""
        found, _ = read_model(self.path, self.weights_key)
        height, width = found.shape[1:3] if found.model.channels_last else found.shape[2:4]
        return height, width

    @property
    def runs_in(self) -> str:
        """What runs it: onnxruntime, or where that is missing onnx's own evaluator in numpy."""
        try:
            import onnxruntime
        except ImportError:
            import onnx

            return f"onnx {onnx.__version__}'s reference evaluator"
        return f"onnxruntime {onnxruntime.__version__}"

    @property
    def dtype(self) -> str:
        """The coarsest float dtype that it holds weights in, which is what its results are rounded to."""
        model = parse(self.path)
        if self._in_float32(model) is not None:
            return "float32"
        kinds = {tensor.data_type for tensor in model.graph.initializer}
        return "bfloat16" if 16 in kinds else "float16" if 10 in kinds else "float32"

    def _runner(self, stages: Mapping[str, str]) -> _Run:
        """The graph, asked for the stages alone."""
        import onnx

        model = parse(self.path)
        model = self._in_float32(model) or model
        given = next(it for it in model.graph.input if it.name not in {t.name for t in model.graph.initializer})
        dtype = _DTYPES.get(given.type.tensor_type.elem_type, np.float32)
        known = {it.name: it for it in model.graph.output}
        del model.graph.output[:]  # only what is asked for is computed
        names = list(dict.fromkeys(stages.values()))
        model.graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in names)
        run = self._in_onnxruntime(model) or self._in_onnx(model)

        def runner(images: np.ndarray) -> list[np.ndarray]:
            try:
                arrays = dict(zip(names, run(names, {given.name: images.astype(dtype)}), strict=True))
            except Exception as error:  # each has errors of its own
                raise VitportError(f"{self.path} cannot be run by {self.runs_in}: {first_line(error)}.") from error
            return [np.asarray(arrays[name]) for name in stages.values()]

        return runner

    def _in_float32(self, model: ModelProto) -> ModelProto | None:
        found, _ = read_model(self.path, self.weights_key)
        width = found.model.tensors["patch_embed.proj.weight"].shape[0] // found.model.facts["num_heads"]
        return in_float32(model, self.path.parent, width)

    def _in_onnxruntime(self, model: ModelProto) -> _Session | None:
        try:
            import onnxruntime
        except ImportError:
            return None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # optimisations may round weights to integers
        options.graph_optimization_level = level
        options.add_session_config_entry(_FOLDER, str(self.path.parent.resolve()))
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise VitportError(f"{self.path} cannot be run by {self.runs_in}: {first_line(error)}.") from error
        return session.run

    def _in_onnx(self, model: ModelProto) -> _Session:
        from onnx.external_data_helper import load_external_data_for_model
        from onnx.reference import ReferenceEvaluator

        load_external_data_for_model(model, str(self.path.parent))  # read_model has checked where they lie
        return ReferenceEvaluator(model).run


def _as_tokens(array: np.ndarray) -> np.ndarray:
    """Maps (B, rows, columns, D) row by row, (B, N, D); anything else as it is."""
    return array.reshape(len(array), -1, array.shape[-1]) if array.ndim == 4 else array


def onnx_activations(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """:meth:`OnnxGraph.activations` of a file."""
    return OnnxGraph(path).activations(images)
