"""What training changes about weights, said before it starts."""

from __future__ import annotations

from conversion.checkpoint import Checkpoint
from vit_spec import family_module


def before_training(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Sentences that follow "the run", about what the weights' other readers expect and training does not keep."""
    family = family_module(__package__ or "", checkpoint.config)
    return getattr(family, "before_training", lambda _: ())(checkpoint)
