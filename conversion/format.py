"""A format: a few declarations. Each module in ``conversion/formats/FAMILY/`` makes one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conversion.checkpoint import Checkpoint
from conversion.second_reading import Reading
from conversion.tensors.rules import Names
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import Config, Preprocessing
from vit_spec.swin.resizing import OffsetResize
from vit_spec.vit.config import Pooling

Writer = Callable[[Path, TensorTable, Checkpoint, Callable[[str], None]], None]
"""``write(path, table, checkpoint, progress)`` writes the tensors of ``table``, under the format's names, and what the
format says about the checkpoint's model, to a new path. It calls ``progress`` with each tensor's name."""


@dataclass(frozen=True)
class FolderWriter:
    """A :data:`Writer` of a folder; every other writer writes one file."""

    write: Writer
    files: tuple[str, ...]
    """Regular expressions of the paths, relative to the folder and with ``/``, of all files that it may write. A
    folder that holds anything else is not replaced."""

    def __call__(self, path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
        self.write(path, table, checkpoint, progress)

    def writes(self, file: str) -> bool:
        """Whether a file of that relative path may be its own."""
        return any(re.fullmatch(pattern, file) for pattern in self.files)


def _everything(config: Config) -> list[str]:
    del config
    return []


@dataclass(frozen=True)
class Format:
    """One naming and layout of a model's tensors.

    A file belongs to the format whose ``signature`` it shows. ``writer`` packs the bytes.
    """

    name: str
    summary: str
    names: Names
    signature: tuple[str | tuple[str, ...], ...]
    """Names that every file of this format has, without prefix; a tuple stands for any one of its names."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Names of the signature → how many axes their tensors have, where another format has the same names."""
    family: str = "vit"
    """The family of the models that it holds."""
    before: tuple[str, ...] = ()
    """Formats whose signatures this format's files may show too. This format is tried before them."""
    group: str = ""
    """A name that stands for several formats when reading or writing: the first that fits is taken. It may be the name
    of one of them: each family has a format in the group ``timm``, and the plain ViT's has that name."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """transformers' ``model_type`` → the classes whose folders have this format."""
    by_class: bool = False
    """Whether other formats have the same names, so that only a config.json of one of ``classes`` shows this one."""
    either_order: bool = False
    """Whether pre-norm and post-norm blocks have the same names, so that the caller must say which they are."""
    base: str | tuple[str, ...] = ""
    """Prefix of the body where a head lies beside it (``vit.`` beside ``classifier``); several if it varies."""
    set_aside: Mapping[str, str] = field(default_factory=dict)
    """Patterns of names that no forward pass reads, each with the reason; ``*`` and ``[0-9]`` are wildcards."""
    ignored_if: Callable[[TensorTable, Mapping[str, Any]], dict[str, str]] | None = None
    """From a file's tensors and config.json, the names that change no output of this file, each with the reason."""
    classifier_pool: Pooling | None = None
    """The pooling of the family's own classifier where it is not the backbone's: what a new head had better read."""
    conventions: Mapping[str, Any] = field(default_factory=dict)
    """Config fields that are the same in every file of this format, such as how positions are resized."""
    facts: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    """Config fields read from a folder's config.json."""
    shape_facts: Callable[[Mapping[str, tuple[int, ...]]], dict[str, Any]] | None = None
    """Config fields that the format's own shapes show and canonical ones do not, such as the number of heads."""
    buffer_facts: Callable[[TensorTable, Mapping[str, tuple[int, ...]]], dict[str, Any]] | None = None
    """Config fields that the tensors which are set aside show by their values; the others' shapes are given too."""
    computed: Callable[[TensorTable, tuple[int, int] | None], Mapping[str, Tensor]] | None = None
    """From canonical tensors and the height and width of images, if they are known, the canonical tensors that the
    format's code computes and does not store. A model is written if its own tensors are these, bit for bit."""
    remarks: Callable[[TensorTable], list[str]] | None = None
    """Sentences about what a file's tensors hold and the model does not."""
    preprocessing: Preprocessing | None = None
    """The family's preprocessing, for files that do not say theirs."""
    reader_defaults: Mapping[str, Any] = field(default_factory=dict)
    """Config fields that other readers of the format assume unless their users say otherwise."""
    offset_resize: OffsetResize = "timm-geometric"
    """How the family's code resizes tables of relative positions for another window."""
    drops: tuple[str, ...] = ()
    """What a checkpoint may have and the format's files have no place for, although it changes no output: ``labels``,
    ``preprocessing``, names of config fields. Fields that do change outputs belong in ``cannot_hold``."""
    writer: Writer | None = None
    """``None`` for formats that are only read."""
    cannot_hold: Callable[[Any], list[str]] = _everything
    """What of a model the format has no place for, each in a few words; empty where the model can be written."""
    computed_otherwise: Callable[[Checkpoint], list[str]] | None = None
    """Where other readers of a written file compute another function than the model, in sentences."""
    second_reading: Reading | None = None
    """The format described without its rules, which ``vitport convert --verify`` runs files by."""

    @property
    def can_write(self) -> bool:
        return self.writer is not None

    def usual_preprocessing(self, config: Config) -> Preprocessing:
        """The preprocessing to assume for this model where a file does not say it: the family's, else ImageNet's."""
        return fit_preprocessing(self.preprocessing or Preprocessing(), config)


def fit_preprocessing(usual: Preprocessing, config: Config) -> Preprocessing:
    """``usual`` at the model's image size; mean and std become 0.5 if the model has another number of channels."""
    if config.in_channels != len(usual.mean):
        usual = usual.replace(mean=(0.5,) * config.in_channels, std=(0.5,) * config.in_channels)
    return usual.replace(size=config.image_size)
