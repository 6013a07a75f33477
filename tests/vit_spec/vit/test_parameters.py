"""The list of canonical parameters. Oracles: what transformers' models hold, and the modules of PyTorch."""

from __future__ import annotations

import re

import pytest
import torch
import transformers
from torch import nn

from tests.small_configs import CONFIGS
from vit_spec import (
    Kind,
    Segment,
    Stage,
    ViTConfig,
    VitportError,
    config_from_dict,
    count_blocks,
    count_parameters,
    parameters,
    segments,
)
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
    """Oracle: the class of each module of the PyTorch model; which parameters are tokens, by the paper's names."""
    with torch.device("meta"):
        model = VisionTransformer(CONFIGS[name])
    for parameter in parameters(CONFIGS[name]):
        at, _, leaf = parameter.name.rpartition(".")
        module = model.get_submodule(at)
        if leaf in ("bias", "mlp_bias", "q_bias", "v_bias"):
            expected = Kind.BIAS
        elif isinstance(module, nn.Linear):
            expected = Kind.LINEAR
        elif isinstance(module, nn.Conv2d):
            expected = Kind.CONV
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            expected = Kind.NORM
        elif leaf == "gamma":
            expected = Kind.SCALE
        elif leaf == "relative_position_bias_table":
            expected = Kind.OFFSETS
        elif leaf.startswith("lambda_"):
            expected = Kind.SHARE
        elif leaf == "freqs":
            expected = Kind.FREQUENCIES
        else:
            expected = Kind.TABLE if leaf == "pos_embed" else Kind.TOKEN
        assert parameter.kind is expected, parameter.name
        assert parameter.is_kernel == parameter.decays == (expected in (Kind.LINEAR, Kind.CONV)), parameter.name


@pytest.mark.parametrize("name", CONFIGS)
def test_stages_and_layers_are_in_the_order_of_the_forward_pass(name) -> None:
    """Oracle: what ``model.blocks`` holds, what ``embed`` reads by its gradients, what ``num_classes=0`` leaves out."""
    config = CONFIGS[name]
    with torch.device("meta"):
        model = VisionTransformer(config)
    blocks = [{f"blocks.{at}.{own}" for own, _ in block.named_parameters()} for at, block in enumerate(model.blocks)]
    headless = {it.name for it in parameters(config.replace(num_classes=0))}
    for parameter in parameters(config):
        held = [at for at, names in enumerate(blocks) if parameter.name in names]
        assert (parameter.stage is Stage.CLASSIFIER) == (parameter.name not in headless), parameter.name
        assert (parameter.stage is Stage.BLOCK) == bool(held), parameter.name
        if held:
            assert (parameter.block, parameter.index, parameter.layer) == (f"blocks.{held[0]}", held[0], held[0] + 1)
        else:
            assert parameter.segment is parameter.index is parameter.block is None
            assert parameter.layer == (0 if parameter.stage is Stage.EMBED else config.depth + 1), parameter.name
    model = VisionTransformer(config).eval()
    model.embed(torch.ones(1, config.in_channels, *config.image_size)).sum().backward()
    read = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {it.name for it in parameters(config) if it.stage is Stage.EMBED} == read


@pytest.mark.parametrize("name", CONFIGS)
def test_a_segment_is_blocks_of_the_same_parameters(name) -> None:
    (segment,) = segments(CONFIGS[name])
    differing = CONFIGS[name].differential  # in a number that no parameter holds
    assert segment == Segment("blocks", CONFIGS[name].depth, period=CONFIGS[name].depth if differing else 1)
    blocks = [
        [(it.name.removeprefix(f"{it.block}."), it.shape, it.kind, it.split) for it in own]
        for own in (
            [it for it in parameters(CONFIGS[name]) if it.segment == segment and it.index == at]
            for at in range(segment.count)
        )
    ]
    assert len(blocks) == count_blocks(CONFIGS[name])
    assert all(block == blocks[0] for block in blocks)


_OWN_COLUMNS = ("mlp_bias", "q_bias", "v_bias", "relative_position_bias_table")
"""Parameters of a module itself."""
SPLITS = {
    # Shoeybi et al. 2019, section 3: the layer before heads or hidden units is split by columns, the one after by rows.
    # Columns of a layer with several outputs side by side are those of each of them.
    ("blocks.0.attn.qkv", "blocks.0.in_proj", "attn_pool.kv"): "packed",
    ("blocks.0.mlp.fc1", "blocks.0.mlp.fc1_g", "blocks.0.mlp.fc1_x", "attn_pool.q", "attn_pool.mlp.fc1",
     "blocks.0.attn.rel_pos.mlp.fc2"): "columns",
    ("blocks.0.attn.proj", "blocks.0.mlp.fc2", "blocks.0.attn_out_proj", "blocks.0.mlp_out_proj", "attn_pool.proj",
     "attn_pool.mlp.fc2"): "rows",
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_tensor_parallelism_splits_attention_and_mlp_alone(name) -> None:
    expected = {layer: split for layers, split in SPLITS.items() for layer in layers}
    if CONFIGS[name].mlp == "swiglu_packed":
        expected["blocks.0.mlp.fc1"] = "packed"
    for parameter in parameters(CONFIGS[name]):
        layer, _, leaf = parameter.name.rpartition(".")
        layer = re.sub(r"(attns|ffns)\.\d+\.", "", layer)
        if parameter.index in (None, 0):
            split = "columns" if leaf in _OWN_COLUMNS else expected.get(layer)
            assert parameter.split == split, parameter.name


@pytest.mark.parametrize("values", [{}, {"depth": 3, "pos_embed": "all", "register_tokens": 2, "image_size": [32, 48]}])
def test_a_record_without_a_family_is_a_vits(values) -> None:
    """Records of earlier versions have no ``family``; those of this version have none for a ViT either."""
    config = config_from_dict({"patch_size": 16} | values)
    assert config == ViTConfig().replace(**values)
    assert "family" not in config.to_dict()
    assert config_from_dict(config.to_dict() | {"family": "vit"}) == config


def test_an_unknown_family_is_one_sentence() -> None:
    with pytest.raises(VitportError, match=r"family='swin9' is unknown: this version of vitport has vit"):
        config_from_dict({"family": "swin9"})
