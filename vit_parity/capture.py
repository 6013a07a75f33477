"""Every named activation of a model on one batch of images, from either framework.

The models' own code runs, unchanged. In PyTorch, forward hooks observe it. NNX has no hooks: there, the submodules of
a copy of the model, made inside the compiled function, are wrapped, so the original is never touched. The layers'
inputs and outputs are taken as they are; only a few parts, such as the values ``attn.v``, are sliced out of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.frameworks import run_in, torch_array, torch_dtype_name, torch_images
from vit_parity.points import Point, part, points, stage_points
from vit_spec import Config, VitportError

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_jax import VisionModel as JaxModel
    from vit_parity.porting.digests import Digest
    from vit_torch import VisionModel as TorchModel

Activations = dict[str, np.ndarray]
"""Name -> float64 array: ``embed``, ``blocks.0``, …, ``norm`` (B, N, D), and ``head``, the model's output."""


@dataclass(frozen=True)
class Capture:
    """What one run computed."""

    title: str
    """Name of the run in reports."""
    activations: dict[str, np.ndarray]
    """Name → array, in the order of computation and in the dtype of the run."""
    images: np.ndarray
    """(B, H, W, C), preprocessed: the input of the run."""
    facts: dict[str, str] = field(default_factory=dict)
    """How it ran: versions, dtype, precision of matrix products, device."""

    @property
    def dtype(self) -> np.dtype:
        """Of the computation: the dtype of the last activation."""
        return next(reversed(self.activations.values())).dtype


def headings(a: Capture | Digest, b: Capture | Digest) -> list[str]:
    """What ran on either side, in two lines."""
    return [f"{side}: {run.title} ({', '.join(run.facts.values())})" for side, run in (("A", a), ("B", b))]


def capture_torch(
    model: TorchModel, images: np.ndarray, title: str = "torch", *, observed: Sequence[Point] | None = None
) -> Capture:
    """Run the PyTorch model and keep its activations.

    Args:
        model: in evaluation mode; the hooks are removed again.
        images: (B, H, W, C), preprocessed; converted to the model's dtype, device and layout here.
        title: name of the run in reports.
        observed: the activations to keep; every one if not given.

    Raises:
        VitportError: if the model is in training mode.
    """
    import torch

    if model.training:
        raise VitportError("The PyTorch model is in training mode, where outputs are random: call model.eval() first.")
    arrays = watch_torch(model, model.config, images, observed)
    dtype = torch_dtype_name(next(model.parameters()))
    return Capture(title, arrays, images, {"framework": f"torch {torch.__version__}", "dtype": dtype})


def watch_torch(
    model: Any, config: Config, images: np.ndarray, observed: Sequence[Point] | None = None
) -> dict[str, np.ndarray]:
    """Run a PyTorch model whose modules have timm's names, and keep the activations of those that it has.

    Args:
        model: in evaluation mode; the hooks are removed again.
        config: of the model.
        images: (B, H, W, C), preprocessed; converted to the model's dtype, device and layout here.
        observed: the activations to keep; every one if not given.
    """
    import torch

    inputs = torch_images(images, next(model.parameters()))
    with ExitStack() as ends, torch.no_grad():
        watched = there_in(model, observed or points(config))
        found = watched_torch(model, watched, ends)
        model(inputs)
        arrays = {at.name: part(found[at.name], at, config, found.get(at.beside)) for at in watched if at.name in found}
    return {name: torch_array(array) for name, array in arrays.items()}


def watched_torch(model: Any, watched: Sequence[Point], ends: ExitStack) -> dict[str, Any]:
    """Observe a PyTorch model until ``ends`` closes; what it computes appears in the dictionary that is returned."""
    modules = dict(model.named_modules())
    found: dict[str, Any] = {}
    for point in watched:
        ends.callback(_watch_torch(modules, point.module, point, found))
        if point.beside:
            ends.callback(_watch_torch(modules, point.beside, Point(point.beside, point.beside), found))
    return found


def there_in(model: Any, observed: Sequence[Point]) -> list[Point]:
    """The points that a model of PyTorch has."""
    modules = dict(model.named_modules())
    return [point for point in observed if _is_there(modules, point.module)]


def capture_jax(
    model: JaxModel,
    images: np.ndarray,
    title: str = "jax",
    *,
    precision: str = "highest",
    observed: Sequence[Point] | None = None,
) -> Capture:
    """Run the JAX model, compiled as one function, and keep its activations.

    Args:
        model: in evaluation mode; it is not changed.
        images: (B, H, W, C), preprocessed; converted to the model's dtype here.
        title: name of the run in reports.
        precision: of matrix products, as ``jax.default_matmul_precision`` takes it.
        observed: the activations to keep; every one if not given.

    Raises:
        VitportError: if the model is in training mode.
    """
    import jax
    from flax import nnx

    kept = observed or points(model.config)
    run, state = jax_capturer(model, kept), nnx.state(model)
    with jax.default_matmul_precision(precision):
        found = run(state, jax.numpy.asarray(images, model.dtype))
    arrays = {point.name: np.asarray(found[point.name]) for point in kept}  # jit sorts dictionaries by name
    facts = {"framework": f"jax {jax.__version__}", "dtype": np.dtype(model.dtype).name, "precision": precision}
    return Capture(title, arrays, images, facts | {"device": jax.devices()[0].device_kind})


def jax_capturer(model: JaxModel, observed: Sequence[Point] | None = None) -> Callable[[Any, Any], dict[str, Any]]:
    """``run(state, images)``, compiled: the activations of the model with these parameters, by name."""
    import jax
    from flax import nnx

    if not model.deterministic:
        raise VitportError("The JAX model is in training mode, where outputs are random: call model.eval() first.")
    graph, _ = nnx.split(model)
    config = model.config
    watched = observed or points(config)

    def run(state: Any, images: Any) -> dict[str, Any]:
        copy = nnx.merge(graph, state)
        found: dict[str, Any] = {}
        wrap_jax(copy, watched, found)
        found |= dict.fromkeys([point.name for point in watched if not point.module], copy(images))
        return {point.name: part(found[point.name], point, config, found.get(point.beside)) for point in watched}

    return jax.jit(run)


def torch_activations(model: TorchModel, images: np.ndarray) -> Activations:
    """Run the PyTorch model and keep the tokens between its blocks and its output, in float64.

    Args:
        model: in evaluation mode.
        images: (B, H, W, C), preprocessed.
    """
    return _widened(capture_torch(model, images, observed=stage_points(model.config)))


def jax_activations(model: JaxModel, images: np.ndarray) -> Activations:
    """The same of the JAX model, compiled as one function, with matrix products at the highest precision."""
    return _widened(capture_jax(model, images, observed=stage_points(model.config)))


def activations_of(checkpoint: Checkpoint, images: np.ndarray) -> dict[str, Activations]:
    """Both frameworks' models of one checkpoint, run in float32 on the same images.

    Returns:
        ``{"torch": …, "jax": …}``.
    """
    return {
        framework: run_in(
            framework,
            checkpoint,
            "float32",
            torch=lambda model: torch_activations(model, images),
            jax=lambda model: jax_activations(model, images),
        )
        for framework in ("torch", "jax")
    }


def _widened(capture: Capture) -> Activations:
    return {name: array.astype(np.float64) for name, array in capture.activations.items()}


def _is_there(modules: dict[str, Any], path: str) -> bool:
    """Whether a path is a module, or a function of one."""
    above, _, name = path.rpartition(".")
    return path in modules or (above in modules and callable(getattr(modules[above], name, None)))


def _watch_torch(modules: dict[str, Any], path: str, point: Point, found: dict[str, Any]) -> Callable[[], None]:
    """Observes a module by a hook, a function by one in its place; gives what ends that."""
    if path in modules and point.side == "input":
        return modules[path].register_forward_pre_hook(lambda _, given: found.update({point.name: given[0]})).remove
    if path in modules:
        return modules[path].register_forward_hook(lambda _, __, output: found.update({point.name: output})).remove
    above, _, name = path.rpartition(".")
    module, inner = modules[above], getattr(modules[above], name)
    own = name in vars(module)  # a method belongs to the class

    def recorded(*given: Any, **options: Any) -> Any:
        output = inner(*given, **options)
        found[point.name] = given if point.side == "input" else output
        return output

    def end() -> None:
        setattr(module, name, inner) if own else delattr(module, name)

    setattr(module, name, recorded)
    return end


def wrap_jax(model: Any, watched: Sequence[Point], found: dict[str, Any]) -> None:
    """Observe the submodules of a JAX model or block, which is changed; what it computes appears in ``found``."""
    by_module: dict[str, list[Point]] = {}
    for point in watched:
        by_module.setdefault(point.module, []).append(point)
        if point.beside:
            by_module.setdefault(point.beside, []).append(Point(point.beside, point.beside))
    for path in sorted(filter(None, by_module), key=lambda path: -path.count(".")):  # children before parents
        _wrap_jax(model, path, by_module[path], found)


def _wrap_jax(model: Any, path: str, watched: list[Point], found: dict[str, Any]) -> None:
    """Replaces a submodule, or a function of one, by a function that records its input or output."""
    *above, attribute = path.split(".")
    parent = model
    for step in above:
        parent = parent[int(step)] if step.isdigit() else getattr(parent, step)
    inner = parent[int(attribute)] if attribute.isdigit() else getattr(parent, attribute)

    def recorded(*given: Any, **options: Any) -> Any:
        y = inner(*given, **options)
        x = given[0] if len(given) == 1 else given
        found.update({point.name: x if point.side == "input" else y for point in watched})
        return y

    if attribute.isdigit():
        parent[int(attribute)] = recorded
    else:
        setattr(parent, attribute, recorded)
