"""The error of each block by itself: teacher forcing gives every block the exact tokens as input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.bound import relative
from vit_parity.capture import Capture
from vit_parity.frameworks import Framework, run_in, torch_array
from vit_parity.points import stages
from vit_spec import ViTConfig

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_jax import VisionTransformer as JaxModel
    from vit_torch import VisionTransformer as TorchModel


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

    weight = model.patch_embed.proj.weight

    def run(block: Callable[[Any], Any], tokens: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch_array(block(torch.tensor(tokens).to(weight)))

    return _local_errors(run, list(model.blocks), model.config, truth)


def local_errors_jax(model: JaxModel, truth: Capture) -> dict[str, float]:
    """The same of a JAX model, with matrix products at the highest precision."""
    import jax
    from flax import nnx

    def run(block: Any, tokens: np.ndarray) -> np.ndarray:
        graph, state = nnx.split(block)
        compiled = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
        with jax.default_matmul_precision("highest"):
            return np.asarray(compiled(state, jax.numpy.asarray(tokens, model.dtype)))

    return _local_errors(run, list(model.blocks), model.config, truth)


def _local_errors(
    run: Callable[[Any, np.ndarray], np.ndarray], blocks: list[Any], config: ViTConfig, truth: Capture
) -> dict[str, float]:
    known = truth.activations
    *tokens, _ = stages(config)
    return {
        after: relative(run(block, known[before]), known[after])
        for block, before, after in zip(blocks, tokens[:-1], tokens[1:], strict=True)
    }
