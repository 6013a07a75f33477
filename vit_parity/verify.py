"""A conversion verified: the source, computed by its own names, against the result in both frameworks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from conversion import Checkpoint, load_image, prepare
from conversion.changes.dtype import DTYPES
from conversion.containers import onnx
from conversion.formats import FORMATS
from conversion.opening import AS_IT_IS, Opening
from vit_parity.capture import Activations, jax_activations, torch_activations
from vit_parity.certificate import Certificate, Check, stages
from vit_parity.endpoints.onnx_graph import OnnxGraph
from vit_parity.frameworks import Framework, installed, jax_dtype, jax_model, torch_model
from vit_parity.points import stage_points
from vit_parity.semantics import semantics_of_file
from vit_parity.ulp import ROUNDOFF
from vit_spec import Config, Preprocessing, VitportError, parameters

PHOTOGRAPH = Path(__file__).parent / "assets" / "coffee.jpg"
"""A photograph by Rachel Michetti, CC0, from scikit-image's samples; 192 x 192 pixels."""
TITLES: dict[Framework, str] = {"torch": "PyTorch", "jax": "JAX"}
Head = Literal["same", "dropped", "new"]
"""What became of the source's head."""
Run = Callable[[np.ndarray], Activations]
"""Images (B, H, W, C) → activations in float64."""


@dataclass(frozen=True)
class Original:
    """A file of weights, the options that it was read with, and the result."""

    path: Path
    checkpoint: Checkpoint
    opening: Opening = AS_IT_IS
    run: Run | None = None
    """The source's own module, run instead of its file's names; see :mod:`vit_parity.own_module`."""


@dataclass(frozen=True)
class Requested:
    """The requested changes, which are made to the source's own semantics too."""

    head: Head = "same"
    activation: str | None = None
    """The new activation, under the config's name."""
    theta: bool = False
    """Whether theta's periods of rotary positions took the place of the file's own."""
    dtype: str | None = None
    """The dtype that the weights were rounded to."""
    positions: bool = False
    """Whether rows of the position table were added to tokens, which rounds the sums."""
    folded: bool = False
    """Whether factors were multiplied into weights, which rounds the products."""
    notes: tuple[str, ...] = ()
    """The changes, and what the format cannot represent, in words."""


def verify(
    original: Original,
    path: Path,
    result: Checkpoint,
    requested: Requested = Requested(),
    *,
    progress: Callable[[str], None] = lambda what: None,
) -> Certificate:
    """Run the source and the result side by side, on noise and on a photograph.

    The source runs in numpy and float64 by its own names (:mod:`vit_parity.semantics`). The graph of an ONNX file is
    run itself, in onnxruntime, or where that is missing in onnx's evaluator. The written file runs by its own names
    too; and the result, as ``conversion.load`` reads it, runs in every framework that is installed, in float64 and in
    float32. An activation, periods or a dtype that the conversion was asked to change are changed in the reference
    too, so that everything else is still proven.

    Args:
        original: what was converted. Images and patches must have the same sizes as in the result.
        path: the written file or folder.
        result: the checkpoint that was read back from it.
        requested: the intended differences.
        progress: called with the name of each run before it starts.

    Raises:
        VitportError: if the source cannot be run without this project's models.
    """
    graph = original.run is None and _is_onnx(original.path)
    size = OnnxGraph(original.path, original.opening.weights_key).image_size() if graph else None
    sized = result if size is None else prepare(None, weights=result, image_size=size)
    inputs = _inputs(original.checkpoint.preprocessing, sized.config)
    label, unit, reference_of = _reference(original, requested)
    progress(label)
    reference = {name: reference_of(images) for name, images in inputs.items()}
    last = stage_points(sized.config)[-1].name
    other = requested.head == "new" or (requested.head == "dropped" and size is not None)  # a graph keeps its head
    unknown = {last} if other else set()
    checks: list[Check] = []
    for actual, dtype, run in _ways(path, result, sized):
        progress(f"{actual}, {dtype}")
        worst = max(unit, dtype, key=ROUNDOFF.__getitem__)
        for name, images in inputs.items():
            expected = {key: value for key, value in reference[name].items() if key not in unknown}
            judged = dtype == "float64" or unit == "float32"
            found = stages(run(images), expected, sized.config, worst)
            checks.append(Check(f"{actual} in {dtype}", label, worst, name, judged, found))
    checks.append(_pixels(original.checkpoint, result))
    return Certificate(
        tuple(checks), _circumstances(original, path, result, inputs) | {"changes": list(requested.notes)}
    )


def _is_onnx(path: Path) -> bool:
    return path.is_file() and onnx.recognises(path)


def _reference(original: Original, requested: Requested) -> tuple[str, str, Run]:
    """The source's run in words, the dtype whose rounding separates it from the result, and the run itself."""
    if original.run is not None:
        return "the source's own module", "float64", original.run
    if _is_onnx(original.path):
        graph = OnnxGraph(original.path, original.opening.weights_key)
        if requested.activation not in (None, original.checkpoint.config.activation):
            raise VitportError(
                f"{original.path} is a graph, whose activation cannot be changed for the comparison: verify the "
                "conversion without --activation, then change it."
            )
        unit = max(graph.dtype, requested.dtype or "float32", key=ROUNDOFF.__getitem__)
        return f"the source's graph, run by {graph.runs_in.partition(' ')[0]}", unit, graph.activations
    semantics = semantics_of_file(
        original.path,
        original.checkpoint.config,
        opening=original.opening,
        dtype=None if requested.dtype is None else DTYPES[requested.dtype],
        activation=requested.activation,
        theta=requested.theta,
        head=requested.head == "same",
    )
    kernel = next(it.name for it in parameters(original.checkpoint.config) if it.is_kernel)
    stored = original.checkpoint.params.spec(kernel)[1]
    rounding = requested.dtype or str(stored)
    return (
        "the source by its own names",
        rounding if requested.positions or requested.folded else "float64",
        semantics.run,
    )


def _ways(path: Path, result: Checkpoint, sized: Checkpoint) -> Iterator[tuple[str, str, Run]]:
    """What is compared with the source: title, dtype, run."""
    if sized.config == result.config:
        yield "the result by its own names", "float64", semantics_of_file(path, result.config).run
    for dtype in ("float64", "float32"):
        for framework in installed():
            yield TITLES[framework], dtype, _framework_run(framework, sized, dtype)


def _framework_run(framework: Framework, checkpoint: Checkpoint, dtype: str) -> Run:
    """The model built once, run on each image."""
    if framework == "torch":
        return partial(torch_activations, torch_model(checkpoint, dtype))
    with jax_dtype(dtype):
        model = jax_model(checkpoint, dtype)

    def run(images: np.ndarray) -> Activations:
        with jax_dtype(dtype):
            return jax_activations(model, images)

    return run


def _inputs(preprocessing: Preprocessing, config: Config) -> dict[str, np.ndarray]:
    """(1, H, W, C) each: standard normal noise, and a photograph as the weights expect it."""
    noise = np.random.default_rng(0).standard_normal((1, *config.image_size, config.in_channels))
    found = {"noise": noise.astype(np.float32)}
    if config.in_channels in (1, 3):
        found["a photograph"] = load_image(PHOTOGRAPH, preprocessing.replace(size=config.image_size))[None]
    return found


def _pixels(before: Checkpoint, after: Checkpoint) -> Check:
    """The preprocessed photograph: mean, standard deviation, channels. Not judged if the format drops them."""
    colours = before.preprocessing.replace(size=after.config.image_size)
    same = after.config.in_channels in (1, 3)
    first, second = (
        {"pixels": load_image(PHOTOGRAPH, steps).astype(np.float64)} if same else {}
        for steps in (colours, after.preprocessing)
    )
    judged = "preprocessing" not in FORMATS[after.provenance.format].drops
    found = stages(second, first, after.config, "float32")
    return Check(
        "the photograph as the result wants it", "as the source wants it", "float32", "a photograph", judged, found
    )


def _circumstances(original: Original, path: Path, result: Checkpoint, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    source = original.checkpoint.provenance
    return {
        "source": {"path": str(original.path), "format": source.format, "files": _hashes(source.files)},
        "result": {
            "path": str(path), "format": result.provenance.format, "files": _hashes(result.provenance.files)
        },
        "config": result.config.to_dict(),
        "origins": dict(source.origins),
        "images": {
            name: {"shape": list(images.shape), "sha256": hashlib.sha256(images.tobytes()).hexdigest()}
            for name, images in inputs.items()
        },
        "versions": {
            name: _version(name) for name in ("vitport", "numpy", "torch", "jax", "flax", "onnx", "onnxruntime")
        },
    }  # fmt: skip


def _hashes(files: tuple[Path, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        with file.open("rb") as opened:
            found[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
