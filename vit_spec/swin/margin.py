"""What of an image fills no patch, in words."""

from __future__ import annotations

from vit_spec.swin.config import SwinConfig


def margin_in_words(config: SwinConfig) -> tuple[str, ...]:
    """A sentence for a user who may not expect it; none where patches fill the image."""
    if config.whole_patches:
        return ()
    (height, width), patch = config.image_size, config.patch_size
    end = (
        "zeros complete them"
        if config.margin_rule == "pad"
        else f"the last {height % patch} rows and the last {width % patch} columns are not read"
    )
    return (f"images of {height}x{width} pixels are not a whole number of patches of {patch}: {end}",)
