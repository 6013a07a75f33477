"""An adapter as peft's ``save_pretrained`` writes it: adapter_config.json and the adapter's tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from conversion.containers import safetensors_file, torch_file
from conversion.source import Source
from vit_spec import VitportError

CONFIG = "adapter_config.json"
_WEIGHTS = {"adapter_model.safetensors": safetensors_file, "adapter_model.bin": torch_file}


def recognises(path: Path) -> bool:
    """A folder with an adapter_config.json."""
    return (path / CONFIG).is_file()


def read(path: Path, weights_key: str | None = None) -> Source:
    """Open the adapter's tensors; ``conversion.adapter`` merges them into their base."""
    for name, container in _WEIGHTS.items():
        if (path / name).is_file():
            return dataclasses.replace(container.read(path / name, weights_key), path=path, under=None)
    raise VitportError(f"{path} has an {CONFIG} but no {' or '.join(_WEIGHTS)}: fetch the adapter's tensors too.")
