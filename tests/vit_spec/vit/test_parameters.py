"""The list of canonical parameters. Oracles: what transformers' models hold, and the modules of vit_torch."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from tests.small_configs import CONFIGS
from vit_spec import Kind, ViTConfig, count_parameters, kind_of, parameters
from vit_torch import VisionTransformer

SIZES = {"num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 4}
OURS = ViTConfig(image_size=(12, 12), patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=0)


def _dinov2_giant() -> nn.Module:
    """Its hidden width: two thirds of the ratio, rounded up to a multiple of 8."""
    return transformers.Dinov2Model(
        transformers.Dinov2Config(**SIZES, hidden_size=24, image_size=12, mlp_ratio=3, use_swiglu_ffn=True)
    )


def _siglip() -> nn.Module:
    sizes = {"hidden_size": 24, "intermediate_size": 41, "image_size": 12}
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SIZES, **sizes))


def _clip() -> nn.Module:
    sizes = {"hidden_size": 24, "intermediate_size": 41, "image_size": 12, "projection_dim": 11}
    return transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**SIZES, **sizes))


def _aimv2() -> nn.Module:
    sizes = {"hidden_size": 24, "intermediate_size": 41, "image_size": 12, "use_head": False}
    return transformers.Aimv2VisionModel(transformers.Aimv2VisionConfig(**SIZES, **sizes))


TWINS = {
    "swiglu_packed": (_dinov2_giant, OURS.replace(mlp="swiglu_packed", mlp_hidden_dim=48, layer_scale=1.0)),
    "map": (_siglip, OURS.replace(pool="map", class_token=False, mlp_hidden_dim=41, activation="gelu_tanh")),
    "pre_norm": (
        _clip,
        OURS.replace(pre_norm=True, patch_bias=False, final_norm="pooled", mlp_hidden_dim=41, num_classes=11),
    ),
    "swiglu": (
        _aimv2,
        OURS.replace(
            mlp="swiglu",
            norm="rmsnorm",
            norm_bias=False,
            qkv_bias=False,
            proj_bias=False,
            patch_norm=True,
            class_token=False,
            pool="avg",
            mlp_hidden_dim=41,
        ),
    ),
}
NOT_OURS = {  # of pre-training (DINOv2), or of a head without bias (CLIP)
    "swiglu_packed": 24,
    "pre_norm": -11,
}


@pytest.mark.parametrize("option", TWINS)
def test_options_hold_as_many_parameters_as_in_transformers(option) -> None:
    make, config = TWINS[option]
    with torch.device("meta"):
        twin = make()
    assert count_parameters(config) + NOT_OURS.get(option, 0) == sum(p.numel() for p in twin.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_kinds_are_those_of_the_modules_that_hold_them(name) -> None:
    """Oracle: the class of each module of the PyTorch model."""
    with torch.device("meta"):
        model = VisionTransformer(CONFIGS[name])
    for parameter in parameters(CONFIGS[name]):
        at, _, leaf = parameter.name.rpartition(".")
        module = model.get_submodule(at)
        if leaf == "bias":
            expected = Kind.BIAS
        elif isinstance(module, nn.Linear):
            expected = Kind.LINEAR
        elif isinstance(module, nn.Conv2d):
            expected = Kind.CONV
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            expected = Kind.NORM
        else:
            expected = Kind.TABLE
        assert parameter.kind is expected, parameter.name


def test_a_kind_is_told_by_name_so_that_square_matrices_are_safe() -> None:
    assert kind_of("blocks.0.attn.proj.weight") is Kind.LINEAR
    assert kind_of("patch_embed.proj.weight") is Kind.CONV
    assert kind_of("blocks.0.mlp.norm.weight") is Kind.NORM
    assert kind_of("blocks.0.ls1.gamma") is Kind.TABLE
    assert kind_of("pos_embed") is Kind.TABLE
