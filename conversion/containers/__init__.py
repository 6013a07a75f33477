"""How bytes are packed: each module opens one kind of file or folder as a :class:`conversion.source.Source`.

A container knows nothing of models; names and layouts are the business of ``conversion.formats``.
"""

from __future__ import annotations

from pathlib import Path

from conversion.containers import (
    huggingface_folder,
    msgpack_file,
    npz_file,
    onnx_file,
    orbax_folder,
    safetensors_file,
    torch_file,
    training_run,
)
from conversion.source import Source
from vit_spec import VitportError

_FILES = (safetensors_file, npz_file, torch_file, msgpack_file, onnx_file)
_FOLDERS = (training_run, huggingface_folder, orbax_folder)  # a run has a config.json too
READABLE = (
    "a safetensors file, a NumPy .npz file, a PyTorch .pt/.pth file, a Flax .msgpack file, an ONNX file, "
    "a Hugging Face folder, a Flax checkpoint folder, or a work directory of training"
)


def open_source(path: Path, weights_key: str | None = None) -> Source:
    """Open a file or folder of weights, recognised by its content and not by its name.

    Args:
        weights_key: which entry of a PyTorch training checkpoint to read, where several hold weights.

    Raises:
        VitportError: if there is nothing, or nothing that any container recognises.
    """
    try:
        return _opened(path, weights_key)
    except OSError as error:
        raise VitportError(
            f"{path} cannot be read ({error.strerror or error}): check the file and its rights."
        ) from error


def _opened(path: Path, weights_key: str | None) -> Source:
    if not path.exists():
        raise VitportError(f"{path} does not exist: give the path of {READABLE}.")
    if path.is_dir():
        for folder in _FOLDERS:
            if folder.recognises(path):
                return folder.read(path, weights_key)
        raise VitportError(f"{path} is a folder without config.json or a Flax checkpoint in it: give {READABLE}.")
    for container in _FILES if path.is_file() else ():  # a device or a pipe has no end
        if container.recognises(path):
            return container.read(path, weights_key)
    raise VitportError(f"{path} is no file of weights that can be read here: give {READABLE}.")
