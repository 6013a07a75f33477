"""What a format is: a few declarations. Each file in ``conversion/formats/`` makes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.tensors.rules import Names
from conversion.tensors.table import TensorTable
from vit_spec import Preprocessing, ViTConfig

Writer = Callable[[Path, TensorTable, Checkpoint, Callable[[str], None]], None]
"""``write(path, table, checkpoint, progress)``: the tensors under the format's names, and what the format says of the
checkpoint's model, to a new path; ``progress`` is called with each tensor's name as it is written."""


def _anything(config: ViTConfig) -> list[str]:
    del config
    return []


@dataclass(frozen=True)
class Format:
    """One naming and layout of a ViT's tensors.

    To read, a file is of the format whose ``signature`` it shows. To write, ``writer`` says how the bytes are packed.
    """

    name: str
    summary: str
    names: Names
    signature: tuple[str | tuple[str, ...], ...]
    """Names that every file of this format has and no file of an earlier format in the list has, without prefix; any
    one of several where the model decides."""
    base: str | tuple[str, ...] = ""
    """Prefix of the body where a head lies beside it (``vit.`` beside ``classifier``), or several that occur."""
    set_aside: Mapping[str, str] = field(default_factory=dict)
    """Names that belong to the format but to no ViT's forward pass, with the reason for leaving them.

    ``*`` and ``[0-9]`` stand for what they do in file names.
    """
    idle: Callable[[TensorTable, Mapping[str, Any]], dict[str, str]] | None = None
    """Names that change nothing in this one file, by what its tensors and its config.json say, with the reason."""
    conventions: Mapping[str, Any] = field(default_factory=dict)
    """ViTConfig fields that are the same in every file of this format, such as how positions are resized."""
    facts: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    """ViTConfig fields that a folder's config.json tells."""
    shape_facts: Callable[[Mapping[str, tuple[int, ...]]], dict[str, Any]] | None = None
    """ViTConfig fields that the format's own shapes tell and canonical ones do not, such as the number of heads."""
    preprocessing: Preprocessing | None = None
    """What the family's pictures go through where the file does not say."""
    assumes: Mapping[str, Any] = field(default_factory=dict)
    """ViTConfig fields that readers other than vitport take for granted unless their users tell them otherwise."""
    forgets: tuple[str, ...] = ()
    """What has no place in the format's files although a checkpoint has it: ``labels``, ``preprocessing``, ViTConfig
    fields that change no output. What does change it is refused by ``cannot_hold``."""
    writer: Writer | None = None
    cannot_hold: Callable[[ViTConfig], list[str]] = _anything
    """What of a model the format has no place for, each in a few words; empty where it can be written."""

    @property
    def can_write(self) -> bool:
        return self.writer is not None

    def usual_preprocessing(self, config: ViTConfig) -> Preprocessing:
        """What the family's pictures go through before this model, where the file does not say: else ImageNet's."""
        return fit_preprocessing(self.preprocessing or Preprocessing(), config)


def fit_preprocessing(usual: Preprocessing, config: ViTConfig) -> Preprocessing:
    """The same for the model's picture size; mean and deviation are 0.5 where it has another number of channels."""
    if config.in_channels != len(usual.mean):
        usual = usual.replace(mean=(0.5,) * config.in_channels, std=(0.5,) * config.in_channels)
    return usual.replace(size=config.image_size)
