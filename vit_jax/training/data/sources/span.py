"""Images of more than 8 bits a channel, whose range the user names."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from conversion.images.image import decode_wide
from vit_jax.training.data.record import Record, Source, about, at_once
from vit_jax.training.data.sources.holdout import labels_of

Span = tuple[float, float]
"""Values that become black and white; what lies beyond is clipped."""


@dataclass(frozen=True, eq=False)
class InSpan:
    """Another source, whose images of more than 8 bits are brought to 8; those of 8 bits stay as they are."""

    whole: Source
    span: Span

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.whole.classes

    @property
    def labels(self) -> np.ndarray:
        return labels_of(self.whole)

    @property
    def at_once(self) -> int:
        return at_once(self.whole)

    def about(self, at: int) -> tuple[str, int | np.ndarray]:
        """An image's name and label."""
        return about(self.whole, at)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, at: int, /) -> Record:
        record = self.whole[at]
        image = record.image
        if isinstance(image, bytes):
            wide = decode_wide(io.BytesIO(image), record.name)
            return record if wide is None else record._replace(image=eight_bits(wide[..., None], self.span))
        return record if image.dtype == np.uint8 else record._replace(image=eight_bits(image, self.span))


def eight_bits(values: np.ndarray, span: Span) -> np.ndarray:
    """Numbers of any type -> uint8, the same shape, rounded."""
    low, high = span
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
