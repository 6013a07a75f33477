"""The activations of one of timm's models, whose modules have the same names."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_parity.capture import Capture, watch_torch
from vit_parity.frameworks import torch_dtype_name
from vit_spec import VitportError, needed_module

if TYPE_CHECKING:
    from conversion import Checkpoint

_READ = (".safetensors", ".npz")
"""Endings of files that timm reads without unpickling."""


def is_name(path: str) -> bool:
    """Whether ``timm:PATH`` names one of timm's models, not a file, a folder or an address on the Hub."""
    return "/" not in path and Path(path).suffix not in _READ and not Path(path).exists()


def load_timm(path: str, checkpoint: Checkpoint, model: str | None = None) -> Any:
    """One of timm's models in evaluation mode, with unfused attention, so that the softmax is observable.

    Args:
        path: a name of timm's, run with the checkpoint's weights; or a ``.safetensors`` or ``.npz`` file that timm
            reads itself, or a folder or ``hf://owner/name`` with timm's config.json.
        checkpoint: the weights as vitport reads them; for a file, only its number of classes and image size are
            used.
        model: name of the model in a file.

    Raises:
        VitportError: if timm cannot be imported, or refuses the name or the weights.
    """
    try:
        timm = importlib.import_module("timm")  # not in the extra dev, so type checkers do not know it
    except Exception as error:  # torchvision, which timm imports, fails in many ways with another torch
        raise VitportError(
            f"Running timm:{path} needs timm, which cannot be imported here ({' '.join(str(error).split())}): install "
            "timm with the torchvision of this torch, or save a capture where it runs."
        ) from error
    size = {"num_classes": checkpoint.config.num_classes, "img_size": checkpoint.config.image_size}
    try:
        if is_name(path):
            built: Any = timm.create_model(path, **size)
            _fill(built, checkpoint)
        else:
            built = _from_file(timm, path, model, size)
    except VitportError:
        raise
    except Exception as error:  # timm raises many kinds
        raise VitportError(f"timm cannot load {path} ({' '.join(str(error).split())}).") from error
    for module in built.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return built.eval()


def capture_timm(model: Any, checkpoint: Checkpoint, images: np.ndarray, title: str = "timm") -> Capture:
    """Run one of timm's models and keep every activation that has a name here.

    Args:
        model: in evaluation mode.
        checkpoint: the same model as vitport reads it.
        images: (B, H, W, C), preprocessed.
    """
    import torch

    facts = {"framework": f"timm {importlib.metadata.version('timm')}, torch {torch.__version__}"}
    facts["dtype"] = torch_dtype_name(model.patch_embed.proj.weight)
    config = checkpoint.config
    family = needed_module("vit_parity.endpoints", config, "are not compared with timm's yet")
    found = watch_torch(model, config, images, family.timm_points(config))
    return Capture(title, {name: family.fitted(name, array) for name, array in found.items()}, images, facts)


def _from_file(timm: Any, path: str, name: str | None, size: dict[str, Any]) -> Any:
    from conversion.hub import local

    place = local(path)
    if place.is_dir():
        if not (place / "model.safetensors").is_file():
            raise VitportError(f"{path} has no model.safetensors: give timm a folder that holds one.")
        return timm.create_model(f"local-dir:{place}", pretrained=True, **size)
    if place.suffix not in _READ:
        raise VitportError(f"{path} is not passed to timm, which might unpickle it: convert it to .safetensors first.")
    if name is None:
        raise VitportError(f"{path} does not say which of timm's models it is: add --model NAME.")
    told = {"file": str(place), "num_classes": size["num_classes"], "custom_load": place.suffix == ".npz"}
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=told, **size)


def _fill(model: Any, checkpoint: Checkpoint) -> None:
    """Load the checkpoint's weights, whose names are timm's; none may be missing or left over."""
    import torch

    weights = {name: torch.tensor(array.astype(np.float32)) for name, array in checkpoint.params.items()}
    model.load_state_dict(weights, strict=True)
