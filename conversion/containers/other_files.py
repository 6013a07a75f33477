"""Files that are taken for weights and hold none that vitport reads: what each is, and what to give instead."""

from __future__ import annotations

import zipfile
from pathlib import Path

_BY_ONNX = "export the model to ONNX where it runs, and give the .onnx file"
_COMPRESSED = {
    b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd",
    b"7z\xbc\xaf": "7z x", b"Rar!": "unrar x",
}  # fmt: skip
"""First bytes of a compressed file → what unpacks it."""
_KINDS = {
    b"\x89HDF\r\n\x1a\n": f"is an HDF5 file, as Keras and TensorFlow write it: {_BY_ONNX}",
    b"GGUF": "is a GGUF file, whose weights are packed for llama.cpp: give the weights that it was made from",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: fetch that with `git lfs pull`",
    **dict.fromkeys(
        (b"<!doctype", b"<html", b"<?xml"),
        "is a web page or XML, not weights: fetch the file again, from an address that gives the file itself",
    ),
    **{magic: f"is compressed: unpack it with {tool}, and give what comes out" for magic, tool in _COMPRESSED.items()},
}
"""First bytes of a file → what it is, and the next step."""


def said_of(path: Path) -> str | None:
    """What a file or folder without weights is, by its first bytes or entries, in words that follow its path.

    Args:
        path: an existing folder, or a file that does not begin as one of weights.

    Returns:
        ``is …: NEXT STEP``, or ``None`` for anything else.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return f"is a SavedModel of TensorFlow: {_BY_ONNX}"
        return None if any(path.iterdir()) else "is an empty folder: give the one that holds the weights"
    with path.open("rb") as file:
        start = file.read(32)
    if not start:
        return "is an empty file: fetch or write it again"
    if start[4:8] == b"TFL3":
        return f"is a model of TensorFlow Lite: {_BY_ONNX}"
    if path.name.endswith(".index") or ".data-0000" in path.name:
        return f"is a part of a TensorFlow checkpoint: {_BY_ONNX}"
    if start.startswith(b"PK") and _is_keras(path):
        return f"is an archive of Keras: {_BY_ONNX}"
    text = start.lstrip().lower()
    return next((said for magic, said in _KINDS.items() if start.startswith(magic) or text.startswith(magic)), None)


def _is_keras(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "model.weights.h5" in archive.namelist()
    except Exception:  # damaged: the reader of PyTorch files says so
        return False
