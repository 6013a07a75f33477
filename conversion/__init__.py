"""Weights between formats, as plain tables of names and numpy arrays. Needs neither torch nor jax."""

from conversion.changes import (
    with_activation,
    with_channels,
    with_dtype,
    with_fold,
    with_head,
    with_periods,
    with_positions,
    with_sizes,
)
from conversion.changes.changes import Changes
from conversion.changes.prepare import prepare
from conversion.checkpoint import Checkpoint
from conversion.convert import Conversion, convert
from conversion.format import Format
from conversion.formats import FORMATS, register_format, unregister_format
from conversion.images.image import load_image
from conversion.load import load
from conversion.opening import Reading
from conversion.save import save
from conversion.source import Provenance
from conversion.tensors.flax_tree import from_flax, to_flax
from conversion.tensors.patch_kernel import resize_channels, resize_patch_kernel
from conversion.tensors.position_table import resize_position_table
from conversion.tensors.table import TensorTable

__all__ = [
    "FORMATS",
    "Changes",
    "Checkpoint",
    "Conversion",
    "Format",
    "Provenance",
    "Reading",
    "TensorTable",
    "convert",
    "from_flax",
    "load",
    "load_image",
    "prepare",
    "register_format",
    "resize_channels",
    "resize_patch_kernel",
    "resize_position_table",
    "save",
    "to_flax",
    "unregister_format",
    "with_activation",
    "with_channels",
    "with_dtype",
    "with_fold",
    "with_head",
    "with_periods",
    "with_positions",
    "with_sizes",
]
