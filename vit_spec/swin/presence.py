"""What the presence of parameters says about a Swin Transformer."""

from __future__ import annotations

from collections.abc import Iterable

from vit_spec.presence import shown_options as shown
from vit_spec.swin.config import SwinConfig

_BASES = tuple(SwinConfig(version=version, num_classes=0) for version in (1, 2))


def shown_options(names: Iterable[str]) -> dict[str, bool]:
    """See :func:`vit_spec.presence.shown_options`."""
    return shown(names, *_BASES)
