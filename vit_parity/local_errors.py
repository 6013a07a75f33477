"""The error of each block by itself: teacher forcing gives every block the exact tokens as input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.capture import Capture
from vit_parity.frameworks import Framework, run_in, torch_array
from vit_parity.measure import relative
from vit_parity.points import stages
from vit_spec import segments

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_jax import VisionModel as JaxModel
    from vit_torch import VisionModel as TorchModel


def local_errors(framework: Framework, checkpoint: Checkpoint, truth: Capture, dtype: str) -> dict[str, float]:
    """Relative L2 error of each block on the exact input, in one framework and dtype.

    Args:
        framework: which of the two runs.
        checkpoint: the weights.
        truth: the exact activations (:func:`vit_parity.truth.truth_of`).
        dtype: of the run.

    Returns:
        ``blocks.i`` -> error.
    """
    return run_in(
        framework,
        checkpoint,
        dtype,
        torch=lambda model: local_errors_torch(model, truth),
        jax=lambda model: local_errors_jax(model, truth),
    )


def local_errors_torch(model: TorchModel, truth: Capture) -> dict[str, float]:
    """The same of a PyTorch model."""
    import torch

    weight = next(model.parameters())

    def run(block: Callable[[Any], Any], entered: int | None, tokens: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            x = torch.tensor(tokens).to(weight)
            return torch_array(block(x if entered is None else model.enter(entered, x)))

    return _local_errors(run, model, truth)


def local_errors_jax(model: JaxModel, truth: Capture) -> dict[str, float]:
    """The same of a JAX model, with matrix products at the highest precision."""
    import jax
    from flax import nnx

    def run(block: Any, entered: int | None, tokens: np.ndarray) -> np.ndarray:
        graph, state = nnx.split(block)
        compiled = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
        with jax.default_matmul_precision("highest"):
            x = jax.numpy.asarray(tokens, model.dtype)
            return np.asarray(compiled(state, x if entered is None else model.enter(entered, x)))

    return _local_errors(run, model, truth)


def _local_errors(
    run: Callable[[Any, int | None, np.ndarray], np.ndarray], model: TorchModel | JaxModel, truth: Capture
) -> dict[str, float]:
    """The first block of a segment gets what the segment begins with, such as merged patches."""
    known, found = truth.activations, {}
    before = stages(model.config)[0]
    for at, (segment, blocks) in enumerate(zip(segments(model.config), model.segments(), strict=True)):
        for index, block in enumerate(blocks):
            after = segment.block(index)
            found[after] = relative(run(block, None if index else at, known[before]), known[after])
            before = after
    return found
