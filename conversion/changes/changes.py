"""All changes that a conversion may be asked for, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from conversion.changes.activation import ActivationChoice, with_activation
from conversion.changes.dtype import Dtype, with_dtype
from conversion.changes.head import HeadChoice, with_head
from conversion.changes.positions import PositionChoice, with_positions
from conversion.changes.sizes import with_sizes
from conversion.changes.vit.fold import Fold, with_fold
from conversion.changes.vit.periods import PeriodChoice, with_periods
from conversion.checkpoint import Checkpoint
from vit_spec.swin.resizing import OffsetResize, WindowSize
from vit_spec.vit.config import PositionResize


@dataclass(frozen=True)
class Changes:
    """What to change on the way; the default changes nothing. Each change is recorded in the checkpoint's notes."""

    image_size: int | tuple[int, int] | None = None
    """Pixels, a side or (height, width); the position table is resized to it."""
    patch_size: int | None = None
    """Side of a patch in pixels; the patch kernel is resized to it by pseudo-inverse."""
    window_size: WindowSize | None = None
    """Tokens, a side or (height, width), of all stages of a Swin Transformer, or of each; its tables are resized."""
    resize: PositionResize | OffsetResize | None = None
    """Method for the tables of positions; ``None`` takes the one of the weights' family."""
    positions: PositionChoice = "keep"
    """Rows of the position table: for class and distillation token too (``prefix``), or for patches alone."""
    num_classes: int | None = None
    """Classes of the head; where the weights have another number, ``head`` says what to do."""
    head: HeadChoice | None = None
    """``keep`` the head, ``drop`` it for features, or start one of zeros (``zero``) with ``num_classes`` classes."""
    fold: tuple[Fold, ...] = ()
    """Factors to multiply into the layers beside them, so that formats without a place for them can hold the model."""
    periods: PeriodChoice = "keep"
    """``theta`` takes its periods in place of a file's own, for formats that compute them."""
    dtype: Dtype | None = None
    """Every tensor is cast to the nearest value of this type."""
    activation: ActivationChoice | None = None
    """The form of GELU to write, where the destination's readers run the other one by default."""

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with these changes.

        Raises:
            VitportError: if a change is impossible for this checkpoint.
        """
        checkpoint = with_sizes(
            checkpoint,
            image_size=self.image_size,
            patch_size=self.patch_size,
            window_size=self.window_size,
            resize=self.resize,
        )
        checkpoint = with_positions(checkpoint, self.positions)
        checkpoint = with_head(checkpoint, num_classes=self.num_classes, head=self.head)
        checkpoint = with_activation(checkpoint, self.activation or "keep")
        checkpoint = with_fold(checkpoint, self.fold)
        checkpoint = with_periods(checkpoint, self.periods)
        return checkpoint if self.dtype is None else with_dtype(checkpoint, self.dtype)
