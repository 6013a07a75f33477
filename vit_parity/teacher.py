"""Teacher forcing: each block is given the truth's tokens, so that what it adds is its own error alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.bound import relative
from vit_parity.capture import Capture, torch_array

if TYPE_CHECKING:
    from vit_jax import VisionTransformer as JaxModel
    from vit_torch import VisionTransformer as TorchModel


def local_errors_torch(model: TorchModel, truth: Capture) -> dict[str, float]:
    """Relative L2 error of each block on the truth's input, by the block's name, ``blocks.i``."""
    import torch

    weight = model.patch_embed.proj.weight

    def run(block: Callable[[Any], Any], tokens: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch_array(block(torch.tensor(tokens).to(weight)))

    return _local_errors(run, list(model.blocks), truth)


def local_errors_jax(model: JaxModel, truth: Capture) -> dict[str, float]:
    """The same of the JAX model, products at the highest precision."""
    import jax
    from flax import nnx

    def run(block: Any, tokens: np.ndarray) -> np.ndarray:
        graph, state = nnx.split(block)
        compiled = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
        with jax.default_matmul_precision("highest"):
            return np.asarray(compiled(state, jax.numpy.asarray(tokens, model.dtype)))

    return _local_errors(run, list(model.blocks), truth)


def _local_errors(run: Callable[[Any, np.ndarray], np.ndarray], blocks: list[Any], truth: Capture) -> dict[str, float]:
    known = truth.activations
    inputs = ["embed", *(f"blocks.{at}" for at in range(len(blocks)))]
    return {
        after: relative(run(block, known[before]), known[after])
        for block, before, after in zip(blocks, inputs[:-1], inputs[1:], strict=True)
    }
