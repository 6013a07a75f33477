"""``capture(model, inputs)``: everything that a model of any framework computes, by name."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from vit_parity.capture import Capture
from vit_parity.porting.digests import Digest
from vit_parity.porting.equinox_model import equinox_module
from vit_parity.porting.kept_steps import Keep, Names, Steps, save
from vit_parity.porting.stages import Model, Observed
from vit_spec import VitportError


@overload
def capture(
    model: Any, inputs: Any, *, names: Names | None = None, title: str | None = None,
    keep: Literal["arrays"] = "arrays", to: str | Path | None = None
) -> Capture: ...  # fmt: skip
@overload
def capture(
    model: Any, inputs: Any, *, names: Names | None = None, title: str | None = None, keep: Literal["digest"],
    to: str | Path | None = None
) -> Digest: ...  # fmt: skip
def capture(
    model: Any, inputs: Any, *, names: Names | None = None, title: str | None = None, keep: Keep = "arrays",
    to: str | Path | None = None
) -> Capture | Digest:  # fmt: skip
    """Run a model once, and keep what each of its modules returns.

    >>> kept = vitport.capture(model, x)
    >>> kept.activations["encoder.layers.0.norm1"].shape
    (1, 197, 192)

    Args:
        model: a ``torch.nn.Module``; a Flax NNX or Equinox module; a Linen module with its variables, ``(module,
            variables)``, or bound; a JAX function, such as ``jax.vmap`` of a module, in which modules of Linen, Haiku
            and Equinox and arrays with a :func:`tag` are seen; or the path of an ``.onnx`` file. Modules are in
            evaluation mode. None is changed.
        inputs: an array, a tuple of positional arguments, or a dict of keyword arguments. numpy's arrays serve every
            framework.
        names: patterns such as ``layers.*.attn`` of the stages to keep; all by default.
        title: name of the run in reports; the model's class by default.
        keep: ``digest`` keeps some kilobytes of each array, as soon as it is computed, instead of the array: enough for
            :func:`vit_parity.porting.compare` to estimate distances.
        to: also write a capture file (.npz or .safetensors), which ``vitport compare`` reads on any machine.

    Returns:
        Name of the module → its output, in the order of computation. A second array that it returns is ``name:1``, its
        second call ``name#2``, a step of a scan ``name[3]``, and the model's own output ``output``.

    Raises:
        VitportError: if the model is of no kind above, is in training mode, or fails.
    """
    made = model_of(model, inputs, title)
    if keep == "digest":
        kept: Capture | Digest = digested_run(made, names)
    else:
        kept = as_capture(made.title, made.run(), inputs, made.facts)
        if names is not None:
            chosen = Steps(made.title, names)
            found = {name: it for name, it in kept.activations.items() if chosen.wants(name.partition(":")[0], ">0")}
            kept = dataclasses.replace(kept, activations=found)
    if not (kept.stages if isinstance(kept, Digest) else kept.activations):
        raise VitportError(f"No stage of {made.title} has a name like {names}: leave out names, and see what there is.")
    if to is not None:
        save(kept, Path(to))
    return kept


def digested_run(made: Model, names: Names | None = None) -> Digest:
    """Run a model; arrays are digested as they are computed, and freed, except those of an ONNX graph."""
    steps = Steps(made.title, names, keep="digest")
    if type(made).__name__ == "TorchModel":
        from vit_parity.porting.training_loop import watch_torch

        with watch_torch(made.module, steps):  # pyright: ignore[reportAttributeAccessIssue]
            made.compute()  # pyright: ignore[reportAttributeAccessIssue]
    elif type(made).__name__ == "JaxModel":
        from vit_parity.porting.training_loop import listen

        with listen(steps, made.tagging()):  # pyright: ignore[reportAttributeAccessIssue]
            made.compute()  # pyright: ignore[reportAttributeAccessIssue]
    else:
        steps.begin()
        for key, array in made.run().values.items():
            if steps.wants(*key):
                steps.put(key, array)
    steps.end()
    kept = steps[0] if len(steps) else Digest(made.title, {}, {})
    return Digest(made.title, kept.stages, made.facts | {"dtype": kept.facts.get("dtype", "float32")})


def as_capture(title: str, seen: Observed, inputs: Any, facts: Mapping[str, str]) -> Capture:
    """A pass as a capture, whose images are the first array among its inputs."""
    arrays = [np.asarray(leaf) for leaf in _leaves(inputs) if hasattr(leaf, "shape")]
    images = arrays[0] if arrays else np.zeros(0, np.float32)
    outputs = seen.outputs
    if not outputs:
        raise VitportError(
            f"{title} showed nothing: it has no modules, and no tag. Name arrays with x = vitport.tag('name', x)."
        )
    dtype = next(reversed(outputs.values())).dtype.name
    return Capture(title, outputs, images, dict(facts) | {"dtype": dtype})


def model_of(model: Any, inputs: Any, title: str | None = None) -> Model:
    """A model of any framework with its inputs, ready to run.

    Raises:
        VitportError: if it is of no known kind.
    """
    args, kwargs = _arguments(inputs)
    named = title or _title(model)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from vit_parity.porting.torch_model import TorchModel

        return TorchModel(model, args, kwargs, named)
    if (isinstance(model, (str, Path)) and str(model).endswith(".onnx")) or type(model).__name__ == "ModelProto":
        from vit_parity.porting.onnx_model import OnnxModel

        return OnnxModel(model, args, kwargs, named)
    if callable(model) or is_linen_pair(model):
        from vit_parity.porting.jax_model import JaxModel

        return JaxModel(model, args, kwargs, named)
    raise VitportError(
        f"A {type(model).__name__} cannot be run: give a torch.nn.Module, a Flax NNX or Equinox module, a Linen module "
        "with its variables (module, variables), a JAX function, or the path of an .onnx file."
    )


def is_linen_pair(value: Any) -> bool:
    """Whether a value is a Linen module with its variables."""
    linen = sys.modules.get("flax.linen")
    return linen is not None and isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], linen.Module)


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


def _title(model: Any) -> str:
    if isinstance(model, (str, Path)):
        return str(model)
    model = model[0] if isinstance(model, tuple) else equinox_module(model) or getattr(model, "func", model)
    return getattr(model, "__name__", type(model).__name__)


def _leaves(inputs: Any) -> Iterator[Any]:
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if isinstance(inputs, (tuple, list)):
        for entry in inputs:
            yield from _leaves(entry)
    elif type(inputs).__module__.startswith("torch"):
        yield inputs.detach().cpu().numpy()
    else:
        yield inputs
