"""Images for training and evaluation: sources, augmentations, batches. Imports neither jax nor a reader's library."""

from vit_jax.training.data.record import Absent, NoDataError
from vit_jax.training.data.source import Record, Source, Table, open_source, open_sources
from vit_jax.training.data.stream import Batch, Feed, Stream, check_channels, evaluation_batches
from vit_jax.training.recipe.data import Augmentation, Data, RandAugment

__all__ = [
    "Absent",
    "Augmentation",
    "Batch",
    "Data",
    "Feed",
    "NoDataError",
    "RandAugment",
    "Record",
    "Source",
    "Stream",
    "Table",
    "check_channels",
    "evaluation_batches",
    "open_source",
    "open_sources",
]
