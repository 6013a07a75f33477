"""Captures as files, to compare a run on another machine with one here."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from conversion.containers.file_checks import check_size, first_line, json_object
from conversion.destination import writable_file, written_aside
from vit_parity.capture import Capture
from vit_spec import VitportError
from vit_spec.printable import printable

_RECORD = "vitport_capture"
_PREFIX = "activations/"
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def save_capture(capture: Capture, path: Path) -> None:
    """Write a capture as ``.npz`` or ``.safetensors``, as the name says.

    bfloat16 is stored as the bits in uint16, since numpy's format and some readers do not support it.

    Raises:
        VitportError: for another ending, or a path that cannot be written.
    """
    if path.suffix not in (".npz", ".safetensors"):
        raise VitportError(f"{path} is not a capture file: its name must end in .npz or .safetensors.")
    arrays = {f"{_PREFIX}{name}": _plain(array) for name, array in capture.activations.items()}
    arrays["images"] = _plain(capture.images)
    dtypes = {name: array.dtype.name for name, array in capture.activations.items()}
    record = {"version": 1, "title": capture.title, "facts": capture.facts, "dtypes": dtypes}
    found = writable_file(path)
    if found.exists() and not is_capture(found):
        raise VitportError(f"{path} exists already and is not a capture: choose another name.")
    with written_aside(path) as aside:
        if path.suffix == ".npz":
            with aside.open("wb") as file:
                np.savez(file, allow_pickle=False, **{_RECORD: np.array(json.dumps(record))}, **arrays)
        else:
            from safetensors import SafetensorError
            from safetensors.numpy import save_file

            try:
                save_file(arrays, aside, {_RECORD: json.dumps(record)})
            except SafetensorError as error:  # a full disk, for one
                raise OSError(first_line(error)) from error


def is_capture(path: Path) -> bool:
    """Whether the file is one that :func:`save_capture` wrote."""
    try:
        return path.is_file() and _record(path) is not None
    except Exception:  # a damaged file raises nearly any type, and is not a capture
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
        found = {printable(name): _typed(arrays[f"{_PREFIX}{name}"], dtype) for name, dtype in dtypes.items()}
        facts = {printable(name): printable(value) for name, value in record["facts"].items()}
        return Capture(printable(record["title"]), found, arrays["images"], facts)
    except VitportError:
        raise
    except Exception as error:  # damaged archives raise nearly every type
        raise VitportError(f"{path} is a damaged capture ({first_line(error)}): write it again.") from error


def _record(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        raise VitportError(f"{path} does not exist, or is not a file: give the path of a capture.")
    if zipfile.is_zipfile(path):
        _check_unpacked(path)
        with np.load(path, allow_pickle=False) as file:
            text = str(file[_RECORD]) if _RECORD in file.files else None
    else:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                text = (file.metadata() or {}).get(_RECORD)
        except SafetensorError:
            return None
    return None if text is None else json_object(path, text)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if zipfile.is_zipfile(path):
        _check_unpacked(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != _RECORD}
    from safetensors.numpy import load_file

    return load_file(path)


def _check_unpacked(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        check_size(path, sum(info.file_size for info in archive.infolist()), path.stat().st_size)


def _plain(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    return array.view(np.uint16) if array.dtype == _BFLOAT16 else array


def _typed(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return array.view(_BFLOAT16)
    if array.dtype.name != dtype:
        raise ValueError(f"{array.dtype.name} instead of {dtype}")
    return array
