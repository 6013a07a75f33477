"""What a reader finds in a file or folder, before the model is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from conversion.tensors.table import TensorTable

OWN_RECORD = "the file's own record"
"""The origin of facts in the record that vitport wrote beside the tensors."""
CONFIG_JSON = "config.json"
"""The origin of facts in the file of that name."""
TRAIN_PY = "timm's record of arguments in the file"
"""The origin of facts that its train.py kept, which say what its config.json would."""


@dataclass(frozen=True)
class Source:
    """Tensors under the file's own names, and what else the file says about the model."""

    path: Path
    container: str
    """How the bytes are packed, in words: ``safetensors``, ``PyTorch pickle``, ``ONNX``, …"""
    table: TensorTable
    files: tuple[Path, ...]
    """Every file that was read; they are hashed."""
    config_json: Mapping[str, Any] | None = None
    """A Hugging Face folder's ``config.json``, or what says the same."""
    described_by: str = CONFIG_JSON
    """What ``config_json`` stands in, in words."""
    preprocessor_json: Mapping[str, Any] | None = None
    """A Hugging Face folder's ``preprocessor_config.json``."""
    own: Mapping[str, Any] | None = None
    """The record that vitport wrote beside the tensors: config, preprocessing, labels, provenance."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Config fields that the file shows in other ways, such as the graph of an ONNX file."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """A training script's own options, under names of its own."""
    notes: tuple[str, ...] = ()
    """What the reader set aside or changed."""
    format: str | None = None
    """Name of the format that the reader itself gave the tensors; ``None`` where their names show it."""
    under: str | None = None
    """What the names of the model to take begin with: what the container left of ``weights_key``."""

    @property
    def several_labels(self) -> bool:
        """Whether the record, or else config.json, says that an image may have several labels."""
        if self.own is not None:
            return self.own.get("several_labels") is True
        return (self.config_json or {}).get("problem_type") == SEVERAL_LABELS


SEVERAL_LABELS = "multi_label_classification"
"""A Hugging Face folder's ``problem_type`` where an image may have several labels."""
_CHUNK = 1 << 18
"""Bytes that are hashed at a time: few enough to stay in the CPU cache."""
CHANGED = "changed: "
"""How notes about a change of weights begin; such notes are passed on from file to file."""


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint came from."""

    format: str
    source: str
    files: tuple[Path, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    """Config field → where its value comes from."""
    notes: tuple[str, ...] = ()
    """What was read, set aside and changed, in sentences."""

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file, or of all files concatenated; empty without files."""
        if not self.files:
            return ""
        digest, chunk = hashlib.sha256(), memoryview(bytearray(_CHUNK))
        for path in self.files:
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(chunk):
                    digest.update(chunk[:count])
        return digest.hexdigest()
