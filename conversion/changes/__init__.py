"""What may be changed in a checkpoint, each only on request, and each recorded in the notes of its provenance."""

from conversion.changes.activation import ActivationChoice, with_activation
from conversion.changes.channels import with_channels
from conversion.changes.dtype import Dtype, with_dtype
from conversion.changes.head import HeadChoice, with_head
from conversion.changes.positions import PositionChoice, with_positions
from conversion.changes.sizes import with_sizes
from conversion.changes.vit.fold import Fold, with_fold
from conversion.changes.vit.periods import PeriodChoice, with_periods

__all__ = [
    "ActivationChoice",
    "Dtype",
    "Fold",
    "HeadChoice",
    "PeriodChoice",
    "PositionChoice",
    "with_activation",
    "with_channels",
    "with_dtype",
    "with_fold",
    "with_head",
    "with_periods",
    "with_positions",
    "with_sizes",
]
