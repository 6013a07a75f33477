"""What a reader finds in a file or folder, before anybody knows which model it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from conversion.tensors.table import TensorTable


@dataclass(frozen=True)
class Source:
    """Tensors under the file's own names, and what the file says of the model besides."""

    path: Path
    container: str
    """How the bytes are packed, in words: ``safetensors``, ``PyTorch pickle``, ``ONNX``, …"""
    table: TensorTable
    files: tuple[Path, ...]
    """Every file that was read, for the hash."""
    config_json: Mapping[str, Any] | None = None
    """A Hugging Face folder's ``config.json``."""
    preprocessor_json: Mapping[str, Any] | None = None
    """A Hugging Face folder's ``preprocessor_config.json``."""
    own: Mapping[str, Any] | None = None
    """What vitport itself wrote beside the tensors: config, preprocessing, labels, provenance."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """ViTConfig fields that the file tells by other means, such as the graph of an ONNX file."""
    notes: tuple[str, ...] = ()
    """What the reader set aside or changed."""


OWN_RECORD = "the file's own record"
"""Who told a fact that vitport itself wrote beside the tensors."""
_CHUNK = 1 << 18
"""Bytes that are hashed at a time: few enough that they are still in the processor's cache."""
CHANGED = "changed: "
"""What the notes begin with that tell of a change in the weights; they travel on from file to file."""


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint came from."""

    format: str
    source: str
    files: tuple[Path, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    """ViTConfig field → who told its value."""
    notes: tuple[str, ...] = ()
    """Every fact with its origin, and everything that was set aside, in sentences."""

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file, or of the files one after the other; empty where there is none."""
        if not self.files:
            return ""
        digest, chunk = hashlib.sha256(), memoryview(bytearray(_CHUNK))
        for path in self.files:
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(chunk):
                    digest.update(chunk[:count])
        return digest.hexdigest()
