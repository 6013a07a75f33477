"""Hugging Face ``Swinv2Model``, ``Swinv2ForImageClassification`` and ``Swinv2Backbone``. The encoder of
``Swinv2ForMaskedImageModeling`` is read."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json import huggingface_swin
from conversion.config_json.huggingface import ACTIVATIONS
from conversion.containers import huggingface_folder
from conversion.format import Format
from conversion.formats.swin.agreement import one_window, unlike_windows, unsupported
from conversion.formats.swin.huggingface_swin import COMMON, PARTS, SET_ASIDE, THEIRS
from conversion.formats.swin.parts import BLOCK
from conversion.second_reading.swin import SwinPartNames, SwinReading
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.table import TensorTable
from conversion.tensors.transforms import Joined
from vit_spec import SwinConfig
from vit_spec.swin.windows import windowings

_LARGEST_SCALE = math.log(34)
_SELF = f"{THEIRS}.attention.self"


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, in which windows and their pretraining windows stand."""
    return huggingface_swin.facts(config) | huggingface_swin.windows_of_version_2(config)


def mask_shows(table: TensorTable) -> list[str]:
    """Scales so large that a masked key can still count: transformers adds the mask of shifted windows twice.

    Scores reach ``exp(scale)`` above and below zero and the bias 16, so a key at -100 counts in float32 where twice the
    factor is more than 68.
    """
    scales = [float(table[name].astype(np.float64).max()) for name in table if name.endswith("logit_scale")]
    if max(scales, default=0.0) <= _LARGEST_SCALE:
        return []
    return [
        f"a logit_scale is {max(scales):.3g}, so attention between unconnected parts of a shifted window can show: "
        "transformers masks it by -200 where Swin's own code does by -100, so its outputs can differ"
    ]


def computed_otherwise(checkpoint: Checkpoint) -> list[str]:
    """The mask, if the model shifts any window."""
    config = checkpoint.config
    assert isinstance(config, SwinConfig)
    shifts = any(any(it.shift) and depth > 1 for it, depth in zip(windowings(config), config.depths, strict=True))
    return mask_shows(checkpoint.params) if shifts else []


def cannot_hold(config: SwinConfig) -> list[str]:
    """One square window, and pretraining windows of one side. A backbone has no norms."""
    complaints = unsupported(config, 2, activation=ACTIVATIONS, norm_eps=(config.norm_eps,), final_norm=(True, False))
    if any(height != width for height, width in config.pretrained_window_sizes):
        complaints.append(f"pretrained_window_sizes={config.pretrained_window_sizes} (config.json states one side)")
    found = one_window(config, huggingface_swin.by_height)
    return complaints + unlike_windows(config, found, "config.json states one window_size, clamped by the height")


def _config_json(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    assert isinstance(config, SwinConfig)
    stated = one_window(config, huggingface_swin.by_height)
    assert stated is not None
    plain = "Swinv2Model" if config.final_norm else "Swinv2Backbone"
    architecture = "Swinv2ForImageClassification" if config.num_classes else plain
    return huggingface_swin.model_json(checkpoint, stated, model_type="swinv2", architecture=architecture)


FORMAT = Format(
    name="huggingface-swinv2",
    summary="Hugging Face Swin v2 folder",
    family="swin",
    group="huggingface",
    names=Rules((
        *COMMON,
        Rule(f"{BLOCK}.attn.qkv.weight", tuple(f"{_SELF}.{part}.weight" for part in ("query", "key", "value")),
             Joined(3)),
        Rule(f"{BLOCK}.attn.q_bias", f"{_SELF}.query.bias"),
        Rule(f"{BLOCK}.attn.v_bias", f"{_SELF}.value.bias"),
        Rule(f"{BLOCK}.attn.logit_scale", f"{_SELF}.logit_scale"),
        *module(f"{BLOCK}.attn.cpb_mlp.0", f"{_SELF}.continuous_position_bias_mlp.0"),
        Rule(f"{BLOCK}.attn.cpb_mlp.2.weight", f"{_SELF}.continuous_position_bias_mlp.2.weight"),
    )),
    signature=(
        "embeddings.patch_embeddings.projection.weight", "encoder.layers.0.blocks.0.attention.self.logit_scale",
    ),
    before=("huggingface-vit",),
    classes={
        "swinv2": ("Swinv2Model", "Swinv2ForImageClassification", "Swinv2Backbone", "Swinv2ForMaskedImageModeling")
    },
    base="swinv2.",
    set_aside=SET_ASIDE,
    conventions={"pad_order": "pad_roll"},
    facts=facts,
    remarks=mask_shows,
    reader_defaults={"activation": "gelu"},
    writer=huggingface_folder.writer(_config_json, place=huggingface_folder.body_prefix("swinv2.", "classifier.")),
    cannot_hold=cannot_hold,
    computed_otherwise=computed_otherwise,
    second_reading=SwinReading(
        names=SwinPartNames(
            **PARTS, logit_scale=("attention.self.logit_scale",),
            bias_first=("attention.self.continuous_position_bias_mlp.0",),
            bias_second=("attention.self.continuous_position_bias_mlp.2",),
        ),
        windows="height",
        pads="pad_roll",
        eps=None,
        activation=None,
        config_json="transformers",
    ),
)  # fmt: skip
