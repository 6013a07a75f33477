"""What training does to a plain ViT that a user may not expect."""

from __future__ import annotations

from conversion.checkpoint import Checkpoint
from conversion.formats.vit.shared_heads import sharing
from vit_spec import ViTConfig


def before_training(checkpoint: Checkpoint[ViTConfig]) -> tuple[str, ...]:
    """Where heads share keys and values, that each is trained by itself. Such models norm queries and keys."""
    config = checkpoint.config
    if not config.qk_norm or config.block != "sequential":
        return ()
    shared = sum(count > 1 for count in sharing(checkpoint))
    if not shared:
        return ()
    return (
        f"trains keys and values of each head by themselves, which heads share in {shared} of {config.depth} blocks: "
        "files of the trained model hold all of them, which transformers reads and timm's model of that name does not "
        "(a frozen backbone keeps them shared)",
    )
