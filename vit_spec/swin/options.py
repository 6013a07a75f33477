"""timm's names for fields of :class:`SwinConfig`."""

from __future__ import annotations

TIMM_NAMES: dict[str, str] = {
    "img_size": "image_size",
    "in_chans": "in_channels",
    "window_size": "window_sizes",
}
"""Arguments of timm's ``SwinTransformer`` and ``SwinTransformerV2`` → the field that means the same."""
