"""The list of canonical parameters and its facts. Oracles: transformers' models, and Microsoft's fine-tuning rules."""

from __future__ import annotations

import pytest
import torch
import transformers

from tests.small_configs import SWIN_CONFIGS
from vit_spec import (
    Kind,
    SwinConfig,
    count_blocks,
    count_parameters,
    get_model,
    parameters,
    segments,
)
from vit_spec.swin.models import MODELS

SQUARE = [name for name, it in SWIN_CONFIGS.items() if len(set(it.window_sizes)) == 1 and it.patch_size == 2]


def _twin(config: SwinConfig) -> torch.nn.Module:
    options = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.in_channels,
        "embed_dim": config.embed_dim,
        "depths": config.depths,
        "num_heads": config.num_heads,
        "window_size": config.window_sizes[0][0],
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "num_labels": config.num_classes,
        "use_absolute_embeddings": config.absolute_pos_embed,
    }
    with torch.device("meta"):
        if config.version == 1:
            return transformers.SwinForImageClassification(transformers.SwinConfig(**options))
        return transformers.Swinv2ForImageClassification(transformers.Swinv2Config(**options))


@pytest.mark.parametrize("name", SQUARE)
def test_there_are_as_many_as_in_transformers(name: str) -> None:
    """It always norms patches and the last map, and has no smaller table where the window shrinks."""
    config = SWIN_CONFIGS[name].replace(patch_norm=True, final_norm=True, stage_norms=(), window_rule="pad")
    assert count_parameters(config) == sum(it.numel() for it in _twin(config).parameters())


@pytest.mark.parametrize("name", SWIN_CONFIGS)
def test_kinds_are_those_that_shapes_and_names_show(name: str) -> None:
    leaves = {
        "bias": Kind.BIAS,
        "q_bias": Kind.BIAS,
        "v_bias": Kind.BIAS,
        "logit_scale": Kind.SCALE,
        "relative_position_bias_table": Kind.OFFSETS,
        "absolute_pos_embed": Kind.TABLE,
    }
    by_axes = {1: Kind.NORM, 2: Kind.LINEAR, 4: Kind.CONV}
    for it in parameters(SWIN_CONFIGS[name]):
        leaf = it.name.rpartition(".")[2]
        assert it.kind is (by_axes[len(it.shape)] if leaf == "weight" else leaves[leaf]), it.name


@pytest.mark.parametrize("name", SWIN_CONFIGS)
def test_decay_and_layers_are_those_of_microsofts_fine_tuning(name: str) -> None:
    """Oracle: ``build_optimizer`` and ``get_swin_layer`` of microsoft/Swin-Transformer's optimizer.py, retold for names
    whose merging stands at the beginning of a stage: no decay for vectors, biases, and names with
    ``absolute_pos_embed``, ``relative_position_bias_table``, ``cpb_mlp`` or ``logit_scale``."""
    config = SWIN_CONFIGS[name]
    undecayed = ("absolute_pos_embed", "relative_position_bias_table", "cpb_mlp", "logit_scale")
    for it in parameters(config):
        vector = len(it.shape) == 1 or it.name.endswith(".bias")
        assert it.decays == (not vector and not any(word in it.name for word in undecayed)), it.name
        words = it.name.split(".")
        if words[0] in ("patch_embed", "absolute_pos_embed"):
            layer = 0
        elif words[0] == "layers" and words[2] == "downsample":
            layer = sum(config.depths[: int(words[1])])
        elif words[0] == "layers":
            layer = sum(config.depths[: int(words[1])]) + int(words[3]) + 1
        else:
            layer = sum(config.depths) + 1
        assert it.layer == layer, it.name


@pytest.mark.parametrize("name", SWIN_CONFIGS)
def test_blocks_of_a_segment_have_the_same_parameters(name: str) -> None:
    config = SWIN_CONFIGS[name]
    assert count_blocks(config) == sum(config.depths)
    for segment in segments(config):
        assert segment.count % segment.period == 0
        shapes = [
            {
                it.name.removeprefix(f"{it.block}."): it.shape
                for it in parameters(config)
                if it.block == segment.block(at)
            }
            for at in range(segment.count)
        ]
        assert shapes[0]
        assert all(each == shapes[0] for each in shapes)


def test_names_are_unique() -> None:
    for model in MODELS:
        names = [it.name for it in parameters(model.config)]
        assert len(names) == len(set(names))


def test_pairs_of_blocks_are_alike_where_windows_are_shifted() -> None:
    assert [segment.period for segment in segments(get_model("swin_tiny_patch4_window7_224").config)] == [2, 2, 2, 1]
