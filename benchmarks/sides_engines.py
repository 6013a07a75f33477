"""The sides that run a graph of timm's model, exported by torch.onnx: onnxruntime and OpenVINO."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.side import Side, import_library, resident_memory, threads
from benchmarks.sides_torch import make_model
from benchmarks.subject import Subject

Engine = Literal["onnxruntime", "openvino"]
_Forward = Callable[[np.ndarray], np.ndarray]


def inference(subject: Mapping[str, Any], batches: Sequence[int], engine: Engine) -> Side:
    """A forward pass, for each batch size a part of that name, of a graph with that size written into it.

    Args:
        subject: the fields of a ``Subject``.
        batches: images in a batch.
        engine: which runs the graph, with its default optimisations, on all cores.
    """
    library = import_library(engine)
    for name in ("onnx", "onnxscript"):  # which torch.onnx imports
        import_library(name)
    what = Subject(**subject)
    model = make_model("timm", what).eval()
    images = {batch: np.ascontiguousarray(what.images(batch).transpose(0, 3, 1, 2)) for batch in batches}
    with tempfile.TemporaryDirectory() as folder:
        forward = {batch: _compiled(engine, library, model, images[batch], Path(folder)) for batch in batches}

    def run(batch: int, count: int) -> None:
        for _ in range(count):
            forward[batch](images[batch])

    facts = {
        "threads": threads(),
        "device": "cpu",
        "libraries": resident_memory(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm", engine)},
    }
    first = min(batches)
    return Side(
        {str(batch): partial(run, batch) for batch in batches}, lambda: {"logits": forward[first](images[first])}, facts
    )


def _compiled(engine: Engine, library: Any, model: torch.nn.Module, images: np.ndarray, folder: Path) -> _Forward:
    path = export(model, images, folder)
    if engine == "onnxruntime":
        options = library.SessionOptions()
        options.intra_op_num_threads = threads()
        session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: images})[0]
    core = library.Core()
    request = core.compile_model(core.read_model(path), "CPU", openvino_settings()).create_infer_request()
    return lambda images: request.infer([images])[0]


def export(model: torch.nn.Module, images: np.ndarray, folder: Path) -> Path:
    """The ONNX file of a model for images (B, C, H, W), with that size written into it."""
    path = folder / f"{len(images)}.onnx"
    torch.onnx.export(model, (torch.from_numpy(images),), path, dynamo=True, external_data=False, verbose=False)
    return path


def openvino_settings() -> dict[str, Any]:
    """Float32 on all cores: of itself OpenVINO computes in bfloat16 where a processor can."""
    return {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads(), "PERFORMANCE_HINT": "LATENCY"}
