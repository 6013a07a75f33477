"""Captures as files, to compare a run on another machine with one here."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from conversion.destination import writable_file
from vit_parity.capture import Capture
from vit_spec import VitportError

_RECORD = "vitport_capture"
_PREFIX = "activations/"
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def save_capture(capture: Capture, path: Path) -> None:
    """Write a capture as ``.npz`` or ``.safetensors``, as the name says.

    bfloat16 is stored as the bits in uint16, since numpy's format and some readers do not support it.

    Raises:
        VitportError: for another ending, or a path that cannot be written.
    """
    arrays = {f"{_PREFIX}{name}": _plain(array) for name, array in capture.activations.items()}
    arrays["images"] = _plain(capture.images)
    dtypes = {name: array.dtype.name for name, array in capture.activations.items()}
    record = {"version": 1, "title": capture.title, "facts": capture.facts, "dtypes": dtypes}
    path = writable_file(path)
    if path.exists() and not is_capture(path):
        raise VitportError(f"{path} exists already and is not a capture: choose another name.")
    try:
        if path.suffix == ".npz":
            with path.open("wb") as file:
                np.savez(file, allow_pickle=False, **{_RECORD: np.array(json.dumps(record))}, **arrays)
        elif path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file(arrays, path, {_RECORD: json.dumps(record)})
        else:
            raise VitportError(f"{path} is not a capture file: its name must end in .npz or .safetensors.")
    except OSError as error:
        raise VitportError(
            f"{path} cannot be written ({error.strerror or error}): choose a writable path with enough space."
        ) from error


def is_capture(path: Path) -> bool:
    """Whether the file is one that :func:`save_capture` wrote."""
    try:
        return path.is_file() and _record(path) is not None
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def load_capture(path: Path) -> Capture:
    """Read what :func:`save_capture` wrote.

    Raises:
        VitportError: if the file is not a capture, or is damaged.
    """
    try:
        record = _record(path)
        if record is None:
            raise VitportError(f"{path} is not a capture: write one with `vitport compare … --save-capture FILE`.")
        arrays = _arrays(path)
        dtypes: Mapping[str, str] = record["dtypes"]
        found = {name: _typed(arrays[f"{_PREFIX}{name}"], dtype) for name, dtype in dtypes.items()}
        return Capture(str(record["title"]), found, arrays["images"], dict(record["facts"]))
    except VitportError:
        raise
    except Exception as error:  # damaged archives raise nearly every type
        raise VitportError(f"{path} is a damaged capture ({error}): write it again.") from error


def _record(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        raise VitportError(f"{path} does not exist: give the path of a capture.")
    if zipfile.is_zipfile(path):
        with np.load(path, allow_pickle=False) as file:
            text = str(file[_RECORD]) if _RECORD in file.files else None
    else:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                text = (file.metadata() or {}).get(_RECORD)
        except SafetensorError:
            return None
    return None if text is None else json.loads(text)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if zipfile.is_zipfile(path):
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != _RECORD}
    from safetensors.numpy import load_file

    return load_file(path)


def _plain(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    return array.view(np.uint16) if array.dtype == _BFLOAT16 else array


def _typed(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return array.view(_BFLOAT16)
    if array.dtype.name != dtype:
        raise ValueError(f"{array.dtype.name} instead of {dtype}")
    return array
