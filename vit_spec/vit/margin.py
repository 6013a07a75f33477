"""What of an image belongs to no patch, in words."""

from __future__ import annotations

from vit_spec.vit.config import ViTConfig


def margin_in_words(config: ViTConfig) -> tuple[str, ...]:
    """A sentence for a user who may not expect it; none where patches fill the image."""
    (height, width), (rows, columns) = config.image_size, config.margin
    if not (rows or columns):
        return ()
    return (
        f"images of {height}x{width} pixels do not divide into patches of {config.patch_size}: the last {rows} "
        f"rows and the last {columns} columns are not read",
    )
