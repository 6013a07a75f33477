"""What a Vision Transformer is, in the standard library alone: configs, names, shapes, preprocessing."""

from vit_spec.errors import VitportError
from vit_spec.preprocessing import Preprocessing
from vit_spec.registry import Model, get_config, get_model, list_models
from vit_spec.vit.config import Pooling, ViTConfig
from vit_spec.vit.cost import forward_flops
from vit_spec.vit.intermediates import OutputFormat, block_indices, check_output_format
from vit_spec.vit.options import config_fields, given_fields
from vit_spec.vit.parameters import Kind, Parameter, count_parameters, kind_of, parameters
from vit_spec.vit.pooling import with_pool

__all__ = [
    "Kind",
    "Model",
    "OutputFormat",
    "Parameter",
    "Pooling",
    "Preprocessing",
    "ViTConfig",
    "VitportError",
    "block_indices",
    "check_output_format",
    "config_fields",
    "count_parameters",
    "forward_flops",
    "get_config",
    "get_model",
    "given_fields",
    "kind_of",
    "list_models",
    "parameters",
    "with_pool",
]
