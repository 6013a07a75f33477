"""A stranger's own PyTorch module as the reference of a verification. Running it is the user's choice."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from conversion.containers.file_checks import first_line
from vit_parity.capture import Activations
from vit_parity.frameworks import torch_images
from vit_parity.points import stage_points
from vit_spec import ViTConfig, VitportError, segments
from vit_spec.frameworks import require_torch


def own_module(named: str, weights: Path, config: ViTConfig) -> Callable[[np.ndarray], Activations]:
    """Import a function, call it for a module, and run that in float64.

    Args:
        named: ``MODULE:FUNCTION``, found in the current folder or installed. The function takes nothing, or the path of
            the weights, and returns a ``torch.nn.Module`` with the weights loaded.
        weights: the source's path.
        config: the model as it was read, to know how many blocks to look for.

    Returns:
        From images (B, H, W, C) to ``blocks.i``, where the module has a list of modules that it calls, one for each
        block, and ``head``, its output.

    Raises:
        VitportError: if the function cannot be imported or fails, or returns no module.
    """
    require_torch("--against")
    import torch

    model = _made(named, weights)
    if not isinstance(model, torch.nn.Module):
        raise VitportError(f"{named} returns a {type(model).__name__}: it must return a torch.nn.Module.")
    model = model.double().eval()
    blocks = _blocks(model, config.depth)
    names = [segment.block(at) for segment in segments(config) for at in range(segment.count)][: len(blocks)]
    last = stage_points(config)[-1].name

    def run(images: np.ndarray) -> Activations:
        found: Activations = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                tokens = output[0] if isinstance(output, tuple) else output
                if isinstance(tokens, torch.Tensor) and tokens.ndim == 3:
                    found[name] = tokens.numpy()

            return hook

        handles = [block.register_forward_hook(keep(name)) for name, block in zip(names, blocks, strict=True)]
        try:
            with torch.no_grad():
                answer = model(torch_images(images, next(model.parameters())))
        except (Exception, SystemExit) as error:  # the user's own code may raise anything, or end the program
            raise VitportError(f"The module of {named} fails on images ({first_line(error)}).") from error
        finally:
            for handle in handles:
                handle.remove()
        answer = answer[0] if isinstance(answer, tuple) else getattr(answer, "logits", answer)
        return found | {last: answer.numpy()}

    return run


def _made(named: str, weights: Path) -> Any:
    module, colon, function = named.partition(":")
    if not (module and colon and function):
        raise VitportError(f"--against {named} must be MODULE:FUNCTION, such as my_model:load.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        make = getattr(importlib.import_module(module), function)
        return make(weights) if inspect.signature(make).parameters else make()
    except (Exception, SystemExit) as error:  # the user's own code may raise anything, or end the program
        raise VitportError(f"--against {named} fails ({type(error).__name__}: {first_line(error)}).") from error


def _blocks(model: Any, depth: int) -> list[Any]:
    """The first list of as many modules as the model has blocks."""
    import torch

    for module in model.modules():
        if isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)) and len(module) == depth:
            return list(module)
    return []
