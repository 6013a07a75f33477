"""One side of a comparison: how it is named, and how it is run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from vit_parity.capture import Capture
from vit_parity.capture_file import is_capture, load_capture
from vit_parity.flow import Flow, captured, flow
from vit_parity.frameworks import Dtype
from vit_parity.points import answer_name, stage_points
from vit_spec import VitportError, needed_module

if TYPE_CHECKING:
    from conversion import Checkpoint

Kind = Literal["torch", "jax", "transformers", "timm", "onnx", "capture"]


@dataclass(frozen=True)
class Endpoint:
    """One side of a comparison."""

    kind: Kind
    path: str

    @property
    def title(self) -> str:
        """Its name in reports."""
        return f"{self.kind}:{self.path}"

    @property
    def borrows(self) -> bool:
        """Whether it is only a name of timm's, which runs with the weights of the other side."""
        from vit_parity.endpoints.timm_model import is_name

        return self.kind == "timm" and is_name(self.path)


def parse_endpoint(text: str, kind: Kind = "torch") -> Endpoint:
    """Parse ``KIND:PATH``; a bare path is a capture if the file is one, and else of the given kind.

    Raises:
        VitportError: for an unknown kind before the colon, if no file has that name.
    """
    before, colon, after = text.partition(":")
    named: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    if colon and before in named:
        return Endpoint(named[before], after)
    looks_like_a_kind = re.fullmatch(r"[A-Za-z]\w+", before) and not after.startswith(
        "//"
    )  # C:\\weights, hf://owner/name
    if colon and looks_like_a_kind and not Path(text).exists():
        raise VitportError(
            f"{text} names {before}: as what runs the weights, which is unknown: choose one of "
            f"{', '.join(f'{kind}:' for kind in named)}, or give a path that exists."
        )
    return Endpoint("capture" if is_capture(Path(text)) else kind, text)


def run_endpoint(
    endpoint: Endpoint, checkpoint: Checkpoint | None, images: np.ndarray, dtype: Dtype, model: str | None = None
) -> Capture:
    """Run one side on the images, and keep every activation; the arguments are those of :func:`endpoint_flow`."""
    return endpoint_flow(endpoint, checkpoint, images, dtype, model).capture()


def endpoint_flow(
    endpoint: Endpoint, checkpoint: Checkpoint | None, images: np.ndarray, dtype: Dtype, model: str | None = None
) -> Flow:
    """One side on the images: our own models run when they are asked for a stage, all others at once.

    Args:
        endpoint: what to run.
        checkpoint: the weights at its path; ``None`` for a capture.
        images: (B, H, W, C), preprocessed.
        dtype: of our own models; transformers and ONNX use the dtype of their files, timm float32.
        model: timm's name of the model, for a file that does not say it.

    Raises:
        VitportError: if the library that runs it is missing, or rejects it.
    """
    if checkpoint is None or endpoint.kind == "capture":
        return captured(load_capture(Path(endpoint.path)))
    if endpoint.kind in ("torch", "jax"):
        return flow(endpoint.kind, checkpoint, images, dtype, endpoint.title)
    if endpoint.kind == "transformers":
        from vit_parity.endpoints.transformers_folder import load_transformers

        config = checkpoint.config
        family = needed_module("vit_parity.endpoints", config, "are not compared with transformers' yet")
        theirs = load_transformers(Path(endpoint.path))
        return captured(family.capture_transformers(theirs, config, images, endpoint.title))
    if endpoint.kind == "timm":
        from vit_parity.endpoints.timm_model import capture_timm, load_timm

        theirs = load_timm(endpoint.path, checkpoint, model)
        return captured(capture_timm(theirs, checkpoint, images, endpoint.title))
    return captured(_run_onnx(endpoint, checkpoint, images))


def _run_onnx(endpoint: Endpoint, checkpoint: Checkpoint, images: np.ndarray) -> Capture:
    from vit_parity.endpoints.onnx_graph import OnnxGraph

    path = Path(endpoint.path)
    if not path.is_file():
        raise VitportError(f"{path} does not exist: give the path of an ONNX file.")
    graph = OnnxGraph(path)
    found = {name: array.astype(np.float32) for name, array in graph.activations(images).items()}
    if (answer := found.pop(stage_points(checkpoint.config)[-1].name, None)) is not None:
        found[answer_name(checkpoint.config)] = answer
    return Capture(endpoint.title, found, images, {"framework": graph.runs_in})
