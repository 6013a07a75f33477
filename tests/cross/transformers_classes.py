"""Every class of transformers with the name of a family of image models, at small sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
import transformers

_NAMES = re.compile("vit|dino|clip|siglip|swin|beit|deit|jepa|owlv2|blip.*vision", re.IGNORECASE)
_SMALL: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "image_size": 32,
    "patch_size": 8, "num_patches": 16, "vocab_size": 100, "embed_dim": 24, "encoder_layers": 1, "decoder_layers": 1,
    "num_queries": 5,
    "decoder_num_hidden_layers": 1, "decoder_hidden_size": 12, "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 20, "layerscale_value": 0.7, "pretrained_window_sizes": [0, 0, 0, 0],
}  # fmt: skip
"""Values of fields of any config, where it has them; most configs are of other widths otherwise."""
_ALSO: dict[str, dict[str, Any]] = {
    "BeitForSemanticSegmentation": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
    "BeitBackbone": {
        "stage_names": ["stem", "stage1", "stage2"],
        "out_indices": [2],
        "use_relative_position_bias": True,
    },
    "BeitModel": {"use_relative_position_bias": True},
    "DINOv3ViTBackbone": {"stage_names": ["stem", "stage1", "stage2"], "out_indices": [2]},
    "Dinov2Backbone": {"stage_names": ["stem", "stage1", "stage2"], "out_indices": [2]},
    "Dinov2WithRegistersBackbone": {"stage_names": ["stem", "stage1", "stage2"], "out_indices": [2]},
    "GroundingDinoForObjectDetection": {"decoder_layers": 2},
    "MMGroundingDinoForObjectDetection": {"decoder_layers": 2},
    "LwDetrViTBackbone": {"num_windows": 4, "window_block_indices": [0]},
    "ViTMAEModel": {"mask_ratio": 0.0},
    "ViTMAEForPreTraining": {"mask_ratio": 0.0},
    "VitMatteForImageMatting": {"convstream_hidden_sizes": [8, 8, 8], "fusion_hidden_sizes": [8, 8, 8, 8]},
}
"""What a class needs beside the sizes."""


def classes() -> Iterator[str]:
    """Names of all models that hold one of the families' names, in any case."""
    for name in dir(transformers):
        if _NAMES.search(name) and not name.endswith("PreTrainedModel"):
            found = getattr(transformers, name)
            if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) and found.config_class:
                yield name


def small(name: str) -> torch.nn.Module:
    """The class built small, with its own random weights."""
    kind = getattr(transformers, name)
    config = kind.config_class()
    _shrink(config)
    for field, value in _ALSO.get(name, {}).items():
        setattr(config, field, value)
    return kind(config)


def _shrink(config: transformers.PretrainedConfig) -> None:
    swin = "swin" in type(config).__name__.lower()
    for field, value in vars(config).copy().items():
        if isinstance(value, transformers.PretrainedConfig):
            _shrink(value)
        elif swin and field in ("depths", "num_heads"):
            setattr(config, field, [1, 1, 1, 1] if field == "depths" else [2, 2, 4, 4])
        elif swin and field in ("patch_size", "image_size", "window_size"):
            setattr(config, field, {"patch_size": 2, "image_size": 32, "window_size": 2}[field])
        elif field in _SMALL and isinstance(value, (int, float, list)):
            setattr(config, field, _SMALL[field])
