"""A run of one side that gives its activations a stage at a time, so that sides can take turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vit_parity.capture import Capture
from vit_parity.frameworks import Framework, jax_dtype, jax_model, torch_model
from vit_parity.points import Point, stage_points
from vit_parity.stagewise import Stages, captured_stages, jax_stages, torch_stages
from vit_spec import Config

if TYPE_CHECKING:
    from conversion import Checkpoint


@dataclass(frozen=True)
class Flow:
    """What will run, and what is known of it before."""

    title: str
    """Name of the run in reports."""
    images: np.ndarray
    """(B, H, W, C), preprocessed."""
    dtype: np.dtype
    facts: dict[str, str]
    """How it runs: versions, dtype, precision of matrix products, device."""
    stages: Callable[[], Stages]
    """Runs it. The arrays belong to the caller, who may take them out of their dictionary to free them."""
    done: Capture | None = None
    """The run, if it is there already."""

    def capture(self) -> Capture:
        """Run it and keep everything."""
        if self.done is not None:
            return self.done
        return Capture(self.title, {name: x for _, found in self.stages() for name, x in found.items()}, self.images,
                       self.facts)  # fmt: skip

    def kept(self, activations: dict[str, np.ndarray]) -> Capture:
        """The run with a few of its activations."""
        return Capture(self.title, activations, self.images, self.facts)


def captured(capture: Capture) -> Flow:
    """The flow of a run that is already there."""
    return Flow(capture.title, capture.images, capture.dtype, capture.facts, lambda: captured_stages(capture), capture)


def flow(
    framework: Framework,
    checkpoint: Checkpoint,
    images: np.ndarray,
    dtype: str = "float32",
    title: str = "",
    *,
    tokens_only: bool = False,
) -> Flow:
    """One of our own models; it is built when it runs.

    Args:
        framework: which of the two.
        checkpoint: the weights.
        images: (B, H, W, C), preprocessed.
        dtype: of the parameters and of the computation.
        title: name of the run in reports.
        tokens_only: give no more than the tokens between stages and the output.
    """
    import ml_dtypes

    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    observed = _tokens(checkpoint.config) if tokens_only else None
    if framework == "torch":
        import torch

        facts = {"framework": f"torch {torch.__version__}", "dtype": dtype}
        run = lambda: torch_stages(torch_model(checkpoint, dtype), images, observed)  # noqa: E731
        return Flow(title, images, kind, facts, run)
    import jax

    facts = {"framework": f"jax {jax.__version__}", "dtype": dtype, "precision": "highest"}

    def stages() -> Stages:
        with jax_dtype(dtype):
            model = jax_model(checkpoint, dtype)
        return jax_stages(model, images, observed)

    return Flow(title, images, kind, facts | {"device": jax.devices()[0].device_kind}, stages)


def _tokens(config: Config) -> list[Point]:
    from vit_parity.points import answer_name, points

    names = {point.name for point in stage_points(config)} | {answer_name(config)}
    return [point for point in points(config) if point.name in names]
