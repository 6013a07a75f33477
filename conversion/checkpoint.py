"""A model's weights, with everything needed to interpret them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np

from conversion.source import CHANGED, Provenance
from conversion.tensors.table import TensorTable
from vit_spec import Config, Preprocessing

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Checkpoint(Generic[C]):
    """Config, preprocessing and weights of one model.

    ``params`` maps canonical names to numpy arrays in PyTorch's axes and any float dtype. Arrays from a file are read
    each time they are used, and not kept.
    """

    config: C
    preprocessing: Preprocessing
    params: TensorTable
    labels: tuple[str, ...] | None = None
    """Names of the classes, in the order of the head's rows; ``None`` if unknown."""
    provenance: Provenance = field(default_factory=lambda: Provenance("memory", "memory"))
    several_labels: bool = False
    """Whether an image may have several of the classes, so that probabilities are sigmoids of the logits."""

    @classmethod
    def of(cls, config: C, params: Mapping[str, np.ndarray], preprocessing: Preprocessing | None = None,
           labels: tuple[str, ...] | None = None) -> Checkpoint[C]:  # fmt: skip
        """A checkpoint of arrays in memory.

        Args:
            config: the model.
            params: canonical name → array in PyTorch's axes, such as a ``state_dict()`` as numpy arrays.
            preprocessing: ``None`` takes ImageNet's at the model's image size.
            labels: names of the classes.
        """
        return cls(config, preprocessing or Preprocessing(size=config.image_size), TensorTable.of(params), labels)

    def changed(self, sentence: str) -> Checkpoint[C]:
        """The checkpoint with a change recorded in its notes, which a file's record keeps."""
        notes = (*self.provenance.notes, CHANGED + sentence)
        return replace(self, provenance=replace(self.provenance, notes=notes))

    def record(self, sha256: str | None = None) -> dict[str, Any]:
        """The record written beside the weights, as JSON values; :func:`conversion.load` reads it back.

        Args:
            sha256: the hash of the source to record; ``None`` computes it.
        """
        return {
            "version": 1,
            "config": self.config.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "labels": self.labels,
            **({"several_labels": True} if self.several_labels else {}),
            "source": {
                "format": self.provenance.format,
                "sha256": self.provenance.sha256 if sha256 is None else sha256,
                "notes": list(self.provenance.notes),
            },
        }
