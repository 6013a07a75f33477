"""What can be compared: our models, one of transformers' or timm's, an ONNX graph, a capture from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from vit_parity.capture import Capture, capture_jax, capture_torch
from vit_parity.capture_file import is_capture, load_capture
from vit_spec import VitportError

if TYPE_CHECKING:
    from conversion import Checkpoint

Kind = Literal["torch", "jax", "transformers", "timm", "onnx", "capture"]
Dtype = Literal["float64", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Endpoint:
    """One side of a comparison."""

    kind: Kind
    path: str

    @property
    def title(self) -> str:
        """As reports call it."""
        return f"{self.kind}:{self.path}"

    @property
    def borrows(self) -> bool:
        """Whether it is a name alone, which is run with the weights of the other side."""
        from vit_parity.timm_capture import is_name

        return self.kind == "timm" and is_name(self.path)


def parse_endpoint(text: str, kind: Kind = "torch") -> Endpoint:
    """``jax:PATH`` and the like; a path alone is a capture where the file is one, and else of the given kind."""
    before, colon, after = text.partition(":")
    named: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    if colon and before in named:
        return Endpoint(named[before], after)
    return Endpoint("capture" if is_capture(Path(text)) else kind, text)


def run_endpoint(
    endpoint: Endpoint, checkpoint: Checkpoint | None, images: np.ndarray, dtype: Dtype, model: str | None = None
) -> Capture:
    """Run one side on the pictures.

    Args:
        endpoint: what to run.
        checkpoint: the weights at its path; a capture has none.
        images: (B, H, W, C), preprocessed.
        dtype: of our own models; transformers and ONNX run in that of their files, timm in float32.
        model: timm's name of the model in a file that does not tell it.

    Raises:
        VitportError: if the program to run it with is missing, or refuses it.
    """
    if checkpoint is None or endpoint.kind == "capture":
        return load_capture(Path(endpoint.path))
    if endpoint.kind == "torch":
        import torch

        import vit_torch

        ours = vit_torch.create_model(weights=checkpoint, dtype=getattr(torch, dtype)).eval()
        return capture_torch(ours, images, endpoint.title)
    if endpoint.kind == "jax":
        return _run_jax(endpoint, checkpoint, images, dtype)
    if endpoint.kind == "transformers":
        from vit_parity.transformers_capture import capture_transformers, load_transformers

        return capture_transformers(load_transformers(Path(endpoint.path)), checkpoint.config, images, endpoint.title)
    if endpoint.kind == "timm":
        from vit_parity.timm_capture import capture_timm, load_timm

        return capture_timm(load_timm(endpoint.path, checkpoint, model), checkpoint, images, endpoint.title)
    return _run_onnx(endpoint, images)


def local_errors(endpoint: Endpoint, checkpoint: Checkpoint, truth: Capture, dtype: Dtype) -> dict[str, float]:
    """The error of each block of ``torch:`` or ``jax:`` on the truth's input (:mod:`vit_parity.teacher`)."""
    from vit_parity.teacher import local_errors_jax, local_errors_torch

    if endpoint.kind == "torch":
        import torch

        import vit_torch

        return local_errors_torch(vit_torch.create_model(weights=checkpoint, dtype=getattr(torch, dtype)).eval(), truth)
    import jax

    import vit_jax

    with jax.enable_x64(dtype == "float64"):
        model = vit_jax.create_model(weights=checkpoint, dtype=dtype, param_dtype=dtype)
        model.eval()
        return local_errors_jax(model, truth)


def _run_jax(endpoint: Endpoint, checkpoint: Checkpoint, images: np.ndarray, dtype: Dtype) -> Capture:
    import jax

    import vit_jax

    with jax.enable_x64(dtype == "float64"):
        model = vit_jax.create_model(weights=checkpoint, dtype=dtype, param_dtype=dtype)
        model.eval()
        return capture_jax(model, images, endpoint.title)


def _run_onnx(endpoint: Endpoint, images: np.ndarray) -> Capture:
    from vit_parity.onnx_activations import onnx_activations

    path = Path(endpoint.path)
    if not path.is_file():
        raise VitportError(f"{path} does not exist: give the path of an ONNX file.")
    found = {name: array.astype(np.float32) for name, array in onnx_activations(path, images).items()}
    import onnxruntime

    return Capture(endpoint.title, found, images, {"framework": f"onnxruntime {onnxruntime.__version__}"})
