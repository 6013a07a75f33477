"""What a model is, in the standard library alone: configs, parameters, named models, preprocessing."""

from vit_spec.errors import UnfitError, UnstatedError, VitportError
from vit_spec.family import (
    Config,
    Family,
    block_sizes,
    config_fields,
    config_from_dict,
    count_blocks,
    count_parameters,
    family_module,
    family_of,
    field_values,
    forward_flops,
    longest_sum,
    needed_module,
    parameters,
    remarks,
    segments,
)
from vit_spec.intermediates import OutputFormat, block_indices, check_output_format
from vit_spec.model import Model
from vit_spec.parameter import BlockSizes, Kind, Parameter, Segment, Split, Stage, flax_path
from vit_spec.preprocessing import Preprocessing
from vit_spec.registry import get_config, get_model, list_models
from vit_spec.swin.config import SwinConfig
from vit_spec.vit.config import Pooling, ViTConfig
from vit_spec.vit.pooling import with_pool

__all__ = [
    "BlockSizes",
    "Config",
    "Family",
    "Kind",
    "Model",
    "OutputFormat",
    "Parameter",
    "Pooling",
    "Preprocessing",
    "Segment",
    "Split",
    "Stage",
    "SwinConfig",
    "UnfitError",
    "UnstatedError",
    "ViTConfig",
    "VitportError",
    "block_indices",
    "block_sizes",
    "check_output_format",
    "config_fields",
    "config_from_dict",
    "count_blocks",
    "count_parameters",
    "family_module",
    "family_of",
    "field_values",
    "flax_path",
    "forward_flops",
    "get_config",
    "get_model",
    "list_models",
    "longest_sum",
    "needed_module",
    "parameters",
    "remarks",
    "segments",
    "with_pool",
]
