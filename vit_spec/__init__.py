"""What a model is, in the standard library alone: configs, parameters, named models, preprocessing."""

from vit_spec.errors import VitportError
from vit_spec.family import (
    Config,
    Family,
    config_from_dict,
    count_blocks,
    count_parameters,
    family_of,
    forward_flops,
    longest_sum,
    parameters,
    segments,
)
from vit_spec.model import Model
from vit_spec.parameter import Kind, Parameter, Segment, Split, Stage, flax_path
from vit_spec.preprocessing import Preprocessing
from vit_spec.registry import get_model, list_models
from vit_spec.vit.config import ViTConfig

__all__ = [
    "Config",
    "Family",
    "Kind",
    "Model",
    "Parameter",
    "Preprocessing",
    "Segment",
    "Split",
    "Stage",
    "ViTConfig",
    "VitportError",
    "config_from_dict",
    "count_blocks",
    "count_parameters",
    "family_of",
    "flax_path",
    "forward_flops",
    "get_model",
    "list_models",
    "longest_sum",
    "parameters",
    "segments",
]
