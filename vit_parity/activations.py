"""What each framework's model computes along the way, under the same names and in the same layout.

The names are the models' own: ``embed`` is what the first block sees, ``blocks.0``, ``blocks.1``, … the tokens after
each block, ``norm`` the tokens after the final norm, all (B, N, D); ``head`` is what the model returns, (B, K), or
(B, D) where it has no classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_spec import VitportError

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_jax import VisionTransformer as JaxModel
    from vit_torch import VisionTransformer as TorchModel

Activations = dict[str, np.ndarray]


def torch_activations(model: TorchModel, images: np.ndarray) -> Activations:
    """Run the PyTorch model and keep every block's tokens.

    Args:
        model: in evaluation mode.
        images: (B, H, W, C), preprocessed; brought to the model's dtype, device and layout here.
    """
    import torch

    if model.training:
        raise VitportError("The PyTorch model is in training mode, where outputs are random: call model.eval() first.")
    weight = model.patch_embed.proj.weight
    pictures = torch.tensor(images).to(weight).permute(0, 3, 1, 2)  # (B, C, H, W)
    with torch.no_grad():
        found = _walk(model, pictures)
    return {name: tensor.detach().cpu().double().numpy() for name, tensor in found.items()}


def jax_activations(model: JaxModel, images: np.ndarray) -> Activations:
    """Run the JAX model, compiled as one function, and keep every block's tokens.

    Products are taken at the highest precision, which on a CPU is the default and on accelerators is not.

    Args:
        model: in evaluation mode.
        images: (B, H, W, C), preprocessed; brought to the model's dtype here.
    """
    import jax
    from flax import nnx

    if not model.deterministic:
        raise VitportError("The JAX model is in training mode, where outputs are random: call model.eval() first.")
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, pictures: _walk(nnx.merge(graph, state), pictures))
    with jax.default_matmul_precision("highest"):
        found = run(state, jax.numpy.asarray(images, model.dtype))
    names = ["embed", *(f"blocks.{at}" for at in range(model.config.depth)), "norm", "head"]  # jit sorts dictionaries
    return {name: np.asarray(found[name], np.float64) for name in names}


def activations_of(checkpoint: Checkpoint, images: np.ndarray) -> dict[str, Activations]:
    """Both frameworks' models of one checkpoint, run in float32 on the same pictures.

    Returns:
        ``{"torch": …, "jax": …}``.
    """
    import vit_jax
    import vit_torch

    torch_model = vit_torch.create_model(weights=checkpoint)
    torch_model.eval()
    jax_model = vit_jax.create_model(weights=checkpoint)
    jax_model.eval()
    return {"torch": torch_activations(torch_model, images), "jax": jax_activations(jax_model, images)}


def _walk(model: Any, pictures: Any) -> dict[str, Any]:
    """The forward pass, step by step; the two models' methods have the same names."""
    tokens = model.embed(pictures)
    found = {"embed": tokens}
    blocks: Iterable[Callable[[Any], Any]] = model.blocks
    for at, block in enumerate(blocks):
        tokens = found[f"blocks.{at}"] = block(tokens)
    tokens = found["norm"] = model.norm(tokens)
    found["head"] = model.forward_head(tokens)
    return found
