"""The backward pass of both models, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.frameworks import Framework, jax_params, run_in, torch_array, torch_images
from vit_parity.measure import Difference, measure, relative
from vit_spec import Config, parameters

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_jax import VisionModel as JaxModel
    from vit_torch import VisionModel as TorchModel

Gradients = dict[str, np.ndarray]
"""Canonical name → gradient in PyTorch's axes, and ``images`` (B, H, W, C)."""


def torch_gradients(model: TorchModel, images: np.ndarray) -> Gradients:
    """Gradients of a fixed random linear function of the output (:func:`cotangent`) by PyTorch's autograd.

    Args:
        model: in evaluation mode; its ``.grad`` fields are left alone.
        images: (B, H, W, C), preprocessed.
    """
    import torch

    named = dict(model.named_parameters())
    inputs = torch_images(images, next(iter(named.values()))).requires_grad_()
    output: Any = model(inputs)  # a pair in training mode only
    loss = (output * torch.tensor(cotangent(tuple(output.shape))).to(output)).sum()
    found = torch.autograd.grad(loss, [*named.values(), inputs])
    gradients = {name: torch_array(gradient) for name, gradient in zip(named, found[:-1], strict=True)}
    return gradients | {"images": torch_array(found[-1].permute(0, 2, 3, 1))}


def jax_gradients(model: JaxModel, images: np.ndarray) -> Gradients:
    """The same by JAX, compiled, with matrix products at the highest precision."""
    import jax
    from flax import nnx

    graph, state = nnx.split(model)

    def loss(state: Any, inputs: Any) -> Any:
        output: Any = nnx.merge(graph, state)(inputs)
        return (output * cotangent(output.shape).astype(output.dtype)).sum()

    with jax.default_matmul_precision("highest"):
        run = jax.jit(jax.grad(loss, argnums=(0, 1)))
        to_state, to_images = run(state, jax.numpy.asarray(images, model.dtype))
    return jax_params(to_state) | {"images": np.asarray(to_images)}


@dataclass(frozen=True)
class GradientRow:
    """The gradient with respect to one parameter, or to the images (``images``), in two runs."""

    name: str
    difference: Difference
    """Of B from A."""
    error_a: float
    """Relative L2 distance of A from the gradient in float64."""
    error_b: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def gradients_of(framework: Framework, checkpoint: Checkpoint, images: np.ndarray, dtype: str) -> Gradients:
    """Gradients of one framework's model of the checkpoint, run in ``dtype``."""
    return run_in(
        framework,
        checkpoint,
        dtype,
        torch=lambda model: torch_gradients(model, images),
        jax=lambda model: jax_gradients(model, images),
    )


def compare_gradients(a: Gradients, b: Gradients, truth: Gradients, config: Config) -> list[GradientRow]:
    """B's gradients against A's, in the order of the backward pass: head, blocks from the last, images.

    Args:
        a: the reference.
        b: the gradients to measure.
        truth: the same in float64.
        config: of the model.
    """
    layers = {"images": -1} | {parameter.name: parameter.layer for parameter in parameters(config)}
    exact: Mapping[str, np.ndarray] = {name: array.astype(np.float64) for name, array in truth.items()}
    return [
        GradientRow(name, measure(b[name], a[name]), relative(a[name], exact[name]), relative(b[name], exact[name]))
        for name in sorted(a, key=lambda name: (layers[name], name), reverse=True)
    ]


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """Weights of the output's elements in the loss: standard normal, the same in both frameworks."""
    return np.random.default_rng(0).standard_normal(shape)
