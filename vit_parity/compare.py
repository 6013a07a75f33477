"""Two runs of a model compared layer by layer, and what is wrong with them: all that ``vitport compare`` measures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.opening import Reading
from vit_parity.capture import Capture
from vit_parity.capture_file import load_capture
from vit_parity.comparing import Comparing, Stage
from vit_parity.comparison import Comparison, Depth, compare_captures
from vit_parity.endpoints import Endpoint, endpoint_flow, parse_endpoint
from vit_parity.explain import Explaining, Explanation
from vit_parity.flow import Flow, flow
from vit_parity.frameworks import Dtype
from vit_parity.gradients import GradientRow, compare_gradients, gradients_of
from vit_parity.hypotheses import Origin
from vit_parity.local_errors import local_errors as measure_local_errors
from vit_parity.replay import ReplayedModel, float64_params
from vit_parity.runs import ImageSize, Load, Runs, Side, with_joint_biases
from vit_parity.seeded import seeded
from vit_parity.shelf import GIGABYTE
from vit_parity.truth import true_flow
from vit_spec import VitportError
from vit_spec.frameworks import require_torch


@dataclass(frozen=True)
class Findings:
    """All that one comparison found out."""

    comparison: Comparison
    runs: Runs
    model: ReplayedModel | None = None
    """The model in float64; ``None`` for two captures."""
    explanations: tuple[Explanation, ...] | None = None
    """``None`` if they were not asked for."""
    local_errors: dict[str, dict[str, float]] | None = None
    """Title of a run → block → its error on the exact input; ``None`` if they were not asked for."""
    gradients: tuple[GradientRow, ...] | None = None
    """In the order of the backward pass; ``None`` if they were not asked for."""
    others: tuple[Depth, ...] = ()
    """Errors by depth of the other dtypes, if they were asked for."""


def compare(
    a: str | Path,
    b: str | Path | None = None,
    *,
    images: str | Path | np.ndarray | None = None,
    seed: int = 0,
    image_size: ImageSize = None,
    dtype: Dtype = "float32",
    explain: bool = False,
    local_errors: bool = False,
    gradients: bool = False,
    memory: float = 1.0,
    **reading: Unpack[Reading],
) -> Findings:
    """Measure how far B is from A, layer by layer, and which of the two is further from the same model in float64.

    A and B are weights, run by ``torch:PATH`` (the default), ``jax:PATH``, ``transformers:FOLDER``, ``timm:FILE`` or
    ``onnx:FILE``; ``timm:NAME``, run with the other side's weights; or a saved capture. Without B, A must be weights in
    PyTorch, and they are compared with the same weights in JAX.

    Args:
        a: the reference.
        b: what is measured.
        images: an image file, or (B, H, W, C) preprocessed; standard normal numbers if not given. A capture brings its
            own images.
        seed: of those numbers.
        image_size: height and width, or one side, in pixels, instead of the weights' own.
        dtype: of ``torch:`` and ``jax:`` runs.
        explain: look for the causes of differences that rounding does not explain.
        local_errors: also measure each block of ``torch:`` and ``jax:`` runs on the exact input.
        gradients: also compare the gradients of ``torch:`` and ``jax:`` runs.
        memory: gigabytes (10**9 bytes) that activations may take at once, beside weights and libraries; what does not
            fit lies in a temporary file.
        reading: what the weights leave open, of both sides, as of :func:`conversion.load`.

    Raises:
        VitportError: if a side cannot be read or run, or if the sides do not have what the options need.
    """
    from conversion.load_sized import load_sized

    load = partial(load_sized, several=True, **reading)
    ends = endpoints(str(a), None if b is None else str(b))
    model = reading.get("model")
    name = model if isinstance(model, str) else None
    runs = run(ends, load, images=images, seed=seed, image_size=image_size, dtype=dtype, model=name)
    return measure(runs, explain=explain, local_errors=local_errors, gradients=gradients, memory=memory)


def endpoints(a: str, b: str | None) -> tuple[Endpoint, ...]:
    """Parse both sides; without B, weights in PyTorch are compared with the same in JAX.

    Raises:
        VitportError: if B is missing and A is something else.
    """
    first = parse_endpoint(a)
    if b is not None:
        return first, parse_endpoint(b)
    if first.kind == "torch":
        return first, parse_endpoint(f"jax:{first.path}")
    raise VitportError(f"{a} has nothing to be compared with: give B too, or weights without {first.kind}:.")


def run(
    ends: tuple[Endpoint, ...],
    load: Load,
    *,
    images: str | Path | np.ndarray | None = None,
    seed: int = 0,
    image_size: ImageSize = None,
    dtype: Dtype = "float32",
    model: str | None = None,
) -> Runs:
    """Prepare every side for the same images.

    Args:
        ends: one or two sides.
        load: reads their weights.
        images: an image file, or (B, H, W, C) preprocessed; standard normal numbers if not given.
        seed: of those numbers.
        image_size: height and width, or one side, in pixels, instead of the weights' own.
        dtype: of ``torch:`` and ``jax:`` runs.
        model: timm's name of the model, for a file that does not say it.
    """
    if any(end.kind in ("torch", "transformers", "timm") for end in ends):
        require_torch("vitport compare (vit_parity.compare)")
    sides = with_joint_biases(_sides(ends, load, image_size))
    array, input_name = _images(sides, images, seed)
    flows = tuple(endpoint_flow(side.endpoint, side.checkpoint, array, dtype, model) for side in sides)
    return Runs(sides, flows, array, input_name, dtype, load)


def measure(
    runs: Runs,
    *,
    explain: bool = False,
    local_errors: bool = False,
    gradients: bool = False,
    depths: bool = False,
    memory: float = 1.0,
) -> Findings:
    """Compare two runs with each other and with float64, a stage at a time; see :func:`compare` for the options.

    Args:
        runs: the two sides.
        explain, local_errors, gradients, memory: as of :func:`compare`.
        depths: also run the last side that is one of our own models in the other dtypes, for charts.

    Raises:
        VitportError: if the sides do not have what the options need.
    """
    if not memory > 0:
        raise VitportError(f"memory must be above 0 gigabytes; got {memory}.")
    a, b = runs.flows
    if not runs.with_weights:
        if explain or local_errors:
            raise VitportError("Two captures alone cannot be explained: give weights for A or B.")
        found = compare_captures(a.capture(), b.capture())
        return Findings(found, runs, gradients=_gradients(runs) if gradients else None)
    endpoint, checkpoint = runs.with_weights[0]
    model = ReplayedModel(checkpoint.config, float64_params(checkpoint.params), a.images)
    origin = Origin(checkpoint.preprocessing, runs.load(endpoint.path, None)) if explain else None
    explaining = (
        ()
        if origin is None
        else tuple(
            Explaining(it.title, it.dtype, model, replace(origin, own=side.own_params))
            for it, side in zip((a, b), runs.sides, strict=True)
        )
    )
    truth, others = true_flow(checkpoint, a.images), _others(runs) if depths else ()
    comparing = Comparing(a, b, truth, model, others, memory=memory * GIGABYTE)
    tokens: dict[str, np.ndarray] = {}

    def visit(stage: Stage) -> None:
        for judge, activations in zip(explaining, (stage.a, stage.b), strict=False):
            judge.add(stage.name, activations)
        if local_errors:
            tokens.update((name, array) for name, array in stage.exact.items() if name == stage.name)

    comparing.run(visit)
    causes = tuple(cause for judge in explaining for cause in judge.found) if explain else None
    errors = _local_errors(runs, Capture("truth", tokens, a.images)) if local_errors else None
    rows = _gradients(runs) if gradients else None
    return Findings(comparing.comparison(), runs, model, causes, errors, rows, comparing.depths())


def _others(runs: Runs) -> tuple[Flow, ...]:
    """The last side that is one of our own models, in the other dtypes; only the tokens between its stages."""
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
    return tuple(
        flow(framework, checkpoint, runs.images, dtype, tokens_only=True)
        for framework, checkpoint, _ in runs.ours[-1:]
        for dtype in dtypes
        if dtype != runs.dtype
    )


def _local_errors(runs: Runs, truth: Capture) -> dict[str, dict[str, float]]:
    return {
        title: measure_local_errors(framework, checkpoint, truth, runs.dtype)
        for framework, checkpoint, title in runs.ours
    }


def _gradients(runs: Runs) -> tuple[GradientRow, ...]:
    """Both sides' gradients of one random linear function of the output."""
    if len(runs.ours) != 2:
        raise VitportError("Gradients are compared for torch: and jax: only: give such weights for A and for B.")
    a, b = (gradients_of(framework, checkpoint, runs.images, runs.dtype) for framework, checkpoint, _ in runs.ours)
    checkpoint = runs.ours[0][1]
    truth = gradients_of("torch", checkpoint, runs.images, "float64")
    return tuple(compare_gradients(a, b, truth, checkpoint.config))


def _sides(ends: tuple[Endpoint, ...], load: Load, image_size: ImageSize) -> tuple[Side, ...]:
    """Each side with its weights, resized for a capture's images if there is a capture."""
    for end in ends:
        if end.kind == "capture" and image_size is None:
            height, width = load_capture(Path(end.path)).images.shape[1:3]
            image_size = (height, width)
    own = [end for end in ends if end.kind != "capture" and not end.borrows]
    paths = list(dict.fromkeys(end.path for end in own))
    weights = {path: _loaded(path, load, image_size, alone=len(paths) == 1) for path in paths}
    lent = weights[own[0].path] if own else None
    for end in ends:
        if end.borrows and lent is None:
            raise VitportError(f"{end.title} is a name without weights: give weights as the other side.")
    return tuple(Side(end, lent if end.borrows else weights.get(end.path)) for end in ends)


def _loaded(path: str, load: Load, image_size: ImageSize, alone: bool) -> Checkpoint:
    """A side's weights; an error names the file where there are two."""
    try:
        return load(path, image_size)
    except VitportError as error:
        if alone or path in str(error):
            raise
        raise VitportError(f"{path}: {error}") from error


def _images(sides: tuple[Side, ...], images: str | Path | np.ndarray | None, seed: int) -> tuple[np.ndarray, str]:
    """(B, H, W, C), preprocessed, and what they are, in words."""
    import conversion

    for side in sides:
        if side.endpoint.kind == "capture":
            return load_capture(Path(side.endpoint.path)).images, f"the images of {side.endpoint.path}"
    checkpoint = next(side.checkpoint for side in sides if side.checkpoint is not None)
    if isinstance(images, np.ndarray):
        return images, "the given images"
    if images is not None:
        return conversion.load_image(images, checkpoint.preprocessing)[None], str(images)
    shape = (1, *checkpoint.config.image_size, checkpoint.config.in_channels)
    numbers = seeded(seed).standard_normal(shape, np.float32)
    return numbers, f"standard normal numbers (seed {seed})"
