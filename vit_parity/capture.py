"""Every named activation of a model on one batch of pictures, from either framework.

The models' own code runs, unchanged. In PyTorch forward hooks watch it. NNX has no hooks: there the submodules of a
copy of the model, made inside the compiled function, are wrapped, so the original is never touched. What is observed
is what the layers were given and gave; only the values ``attn.v`` are cut out of a layer's output here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.points import Point, points
from vit_spec import ViTConfig, VitportError

if TYPE_CHECKING:
    from vit_jax import VisionTransformer as JaxModel
    from vit_torch import VisionTransformer as TorchModel


@dataclass(frozen=True)
class Capture:
    """What one run computed."""

    title: str
    """Whose run it was, as reports call it."""
    activations: dict[str, np.ndarray]
    """Name → array, in the order of computation and in the dtype of the run."""
    images: np.ndarray
    """(B, H, W, C), preprocessed: what the run was given."""
    facts: dict[str, str] = field(default_factory=dict)
    """Where and with what it ran: versions, dtype, precision of products."""

    @property
    def dtype(self) -> np.dtype:
        """Of the computation: the dtype of the last activation."""
        return next(reversed(self.activations.values())).dtype


def capture_torch(model: TorchModel, images: np.ndarray, title: str = "torch") -> Capture:
    """Run the PyTorch model and keep every activation.

    Args:
        model: in evaluation mode; its hooks are taken off again.
        images: (B, H, W, C), preprocessed; brought to the model's dtype, device and layout here.

    Raises:
        VitportError: if the model is in training mode.
    """
    import torch

    if model.training:
        raise VitportError("The PyTorch model is in training mode, where outputs are random: call model.eval() first.")
    arrays = watch_torch(model, model.config, images)
    dtype = torch_dtype(model.patch_embed.proj.weight)
    return Capture(title, arrays, images, {"framework": f"torch {torch.__version__}", "dtype": dtype})


def watch_torch(model: Any, config: ViTConfig, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run a PyTorch model whose modules go by timm's names, and keep what passes through those of them that it has.

    Args:
        model: in evaluation mode; its hooks are taken off again.
        config: of the model.
        images: (B, H, W, C), preprocessed; brought to the model's dtype, device and layout here.
    """
    import torch

    pictures = torch.tensor(images).to(model.patch_embed.proj.weight).permute(0, 3, 1, 2)  # (B, C, H, W)
    modules = dict(model.named_modules())
    watched = [point for point in points(config) if point.module in modules]
    found: dict[str, Any] = {}
    handles = [_watch_torch(modules[point.module], point, found) for point in watched]
    try:
        with torch.no_grad():
            model(pictures)
    finally:
        for handle in handles:
            handle.remove()
    return {at.name: torch_array(_part(found[at.name], at, config)) for at in watched if at.name in found}


def capture_jax(model: JaxModel, images: np.ndarray, title: str = "jax", *, precision: str = "highest") -> Capture:
    """Run the JAX model, compiled as one function, and keep every activation.

    Args:
        model: in evaluation mode; it is not changed.
        images: (B, H, W, C), preprocessed; brought to the model's dtype here.
        precision: of products, as ``jax.default_matmul_precision`` takes it.

    Raises:
        VitportError: if the model is in training mode.
    """
    import jax
    from flax import nnx

    run, state = jax_capturer(model), nnx.state(model)
    with jax.default_matmul_precision(precision):
        found = run(state, jax.numpy.asarray(images, model.dtype))
    arrays = {point.name: np.asarray(found[point.name]) for point in points(model.config)}
    facts = {"framework": f"jax {jax.__version__}", "dtype": np.dtype(model.dtype).name, "precision": precision}
    return Capture(title, arrays, images, facts | {"device": jax.devices()[0].device_kind})


def jax_capturer(model: JaxModel) -> Callable[[Any, Any], dict[str, Any]]:
    """``run(state, pictures)``, compiled: every activation of the model with these parameters, by name."""
    import jax
    from flax import nnx

    if not model.deterministic:
        raise VitportError("The JAX model is in training mode, where outputs are random: call model.eval() first.")
    graph, _ = nnx.split(model)
    config = model.config
    watched = points(config)

    def run(state: Any, pictures: Any) -> dict[str, Any]:
        copy = nnx.merge(graph, state)
        found: dict[str, Any] = {}
        by_module: dict[str, list[Point]] = {}
        for point in watched:
            by_module.setdefault(point.module, []).append(point)
        for path in sorted(filter(None, by_module), key=lambda path: -path.count(".")):  # children before parents
            _wrap_jax(copy, path, by_module[path], found)
        (answer,) = by_module[""]
        found[answer.name] = copy(pictures)
        return {point.name: _part(found[point.name], point, config) for point in watched}

    return jax.jit(run)


def torch_array(tensor: Any) -> np.ndarray:
    """A tensor as numpy; torch knows no numpy dtype for bfloat16, so those travel as bits."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def torch_dtype(tensor: Any) -> str:
    """Name of a tensor's dtype, as numpy has it."""
    return str(tensor.dtype).removeprefix("torch.")


def _watch_torch(module: Any, point: Point, found: dict[str, Any]) -> Any:
    if point.side == "input":
        return module.register_forward_pre_hook(lambda _, inputs: found.update({point.name: inputs[0]}))
    return module.register_forward_hook(lambda _, __, output: found.update({point.name: output}))


def _wrap_jax(model: Any, path: str, watched: list[Point], found: dict[str, Any]) -> None:
    """Puts a function in a submodule's place that notes what goes in and comes out."""
    *above, attribute = path.split(".")
    parent = model
    for step in above:
        parent = parent[int(step)] if step.isdigit() else getattr(parent, step)
    inner = parent[int(attribute)] if attribute.isdigit() else getattr(parent, attribute)

    def noted(x: Any, **options: Any) -> Any:
        y = inner(x, **options)
        found.update({point.name: x if point.side == "input" else y for point in watched})
        return y

    if attribute.isdigit():
        parent[int(attribute)] = noted
    else:
        setattr(parent, attribute, noted)


def _part(x: Any, point: Point, config: ViTConfig) -> Any:
    """The part of a tensor, of either framework, that a point asks for."""
    if point.part == "patches":  # (B, D, H/P, W/P) in PyTorch, (B, H/P, W/P, D) in JAX
        channels_first = type(x).__module__.startswith("torch")
        x = x.permute(0, 2, 3, 1) if channels_first else x
        return x.reshape(x.shape[0], -1, config.embed_dim)  # (B, N, D)
    if point.part == "v":
        B, N, _ = x.shape
        heads = x[..., -config.embed_dim :].reshape(B, N, config.num_heads, config.head_dim)
        return heads.swapaxes(1, 2)  # (B, h, N, d)
    return x
