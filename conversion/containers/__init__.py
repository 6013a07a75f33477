"""How bytes are packed: each module opens one kind of file or folder as a :class:`conversion.source.Source`.

A container knows nothing about models; ``conversion.formats`` knows names and layouts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conversion.containers import (
    adapter_folder,
    huggingface_folder,
    msgpack_file,
    npz_file,
    onnx,
    orbax_folder,
    safetensors_file,
    step_folder,
    torch_file,
    training_run,
)
from conversion.containers.other_files import said_of
from conversion.containers.wall import wall
from conversion.source import Source
from vit_spec import VitportError

_FILES = (safetensors_file, npz_file, torch_file, msgpack_file, onnx)
_BEGINNINGS = (
    safetensors_file.begins_as_one,
    npz_file.begins_as_one,
    torch_file.begins_as_one,
    msgpack_file.begins_as_one,
    onnx.begins_as_one,
)
_FOLDERS = (
    training_run,
    adapter_folder,
    huggingface_folder,
    orbax_folder,
    step_folder,
)  # a training run has a config.json too
READABLE = (
    "a safetensors file, a NumPy .npz file, a PyTorch .pt/.pth file, a Flax .msgpack file, an ONNX file, "
    "a Hugging Face folder, a Flax checkpoint folder or a folder of such steps, or a work directory of training"
)


ENDINGS: dict[Callable[..., None], tuple[str, ...]] = {
    safetensors_file.write: (".safetensors",),
    npz_file.write: (".npz",),
    torch_file.write: (".pt", ".pth", ".bin", ".ckpt", ".tar"),
    msgpack_file.write: (".msgpack",),
}
"""What writes a file of weights → endings of names by which such files are known."""


def open_source(path: Path, weights_key: str | None = None) -> Source:
    """Open a file or folder of weights, recognised by its content, not by its name.

    Args:
        path: what to open.
        weights_key: the entry to read where a file holds several sets of weights.

    Raises:
        VitportError: if the path does not exist, cannot be read, or holds nothing that a container recognises.
    """
    try:
        with wall(path, "cannot be recognised"):
            return _opened(path, weights_key)
    except OSError as error:
        raise VitportError(
            f"{path} cannot be read ({error.strerror or error}): check the file and its permissions."
        ) from error


def is_readable(path: Path) -> bool:
    """Whether a file or folder is of a kind that weights are read from."""
    kinds = _FOLDERS if path.is_dir() else _FILES if path.is_file() else ()
    return any(container.recognises(path) for container in kinds)


def holds_weights(path: Path) -> bool:
    """Whether a file begins as those of a format that weights are kept in; its name says nothing."""
    try:
        return any(begins(path) for begins in _BEGINNINGS)
    except OSError:
        return False


def _opened(path: Path, weights_key: str | None) -> Source:
    if not path.exists():
        raise VitportError(f"{path} does not exist: give the path of {READABLE}.")
    is_other = path.is_dir() or (path.is_file() and not holds_weights(path))  # reading a device or a pipe may never end
    if is_other and (said := said_of(path)):
        raise VitportError(f"{path} {said}.")
    if path.is_dir():
        for folder in _FOLDERS:
            if folder.recognises(path):
                return folder.read(path, weights_key)
        raise VitportError(f"{path} is a folder with neither config.json nor a Flax checkpoint: give {READABLE}.")
    for container in _FILES if path.is_file() else ():
        if container.recognises(path):
            return container.read(path, weights_key)
    raise VitportError(f"{path} is not a file of weights that vitport reads: give {READABLE}.")
