"""Named models. Oracles: published parameter counts, and transformers models built on no device at all."""

from __future__ import annotations

import pytest
import torch
import transformers

from vit_spec import ViTConfig, VitportError, count_parameters, forward_flops, get_model, list_models
from vit_spec.family import FAMILIES
from vit_spec.vit.models import PAPERS, UNSUPPORTED

PUBLISHED = {
    # timm's results tables and the papers' appendices, at 1000 classes (DINOv2: the backbone with its mask token)
    "vit_tiny_patch16_224": 5_717_416,
    "vit_small_patch16_224": 22_050_664,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_224": 88_224_232,
    "vit_large_patch16_224": 304_326_632,
    "vit_huge_patch14_224": 632_045_800,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
    "deit_base_distilled_patch16_224": 87_338_192,
    "vit_small_patch14_dinov2": 22_056_576,
    "vit_base_patch14_dinov2": 86_580_480,
    "vit_large_patch14_dinov2": 304_368_640,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name) -> None:
    config = get_model(name).config
    mask_token = config.embed_dim if "dinov2" in name else 0  # of pre-training; no forward pass reads it
    assert count_parameters(config) + mask_token == PUBLISHED[name]


@pytest.mark.parametrize(
    ("size", "depth", "width", "heads"),
    [
        ("tiny", 12, 192, 3),
        ("small", 12, 384, 6),
        ("base", 12, 768, 12),
        ("large", 24, 1024, 16),
        ("huge", 32, 1280, 16),
    ],
)
def test_sizes_have_the_depth_width_and_heads_of_the_papers(size, depth, width, heads) -> None:
    """Dosovitskiy et al. 2021, table 1; Touvron et al. 2021, table 1. No parameter count tells the number of heads."""
    models = [model.config for model in PAPERS if f"_{size}_" in model.name]
    assert {(config.depth, config.embed_dim, config.num_heads) for config in models} == {(depth, width, heads)}


def _transformers_twin(config: ViTConfig) -> torch.nn.Module:
    sizes = {
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "image_size": config.image_size[0],
        "patch_size": config.patch_size,
        "attn_implementation": "eager",
    }
    with torch.device("meta"):
        if config.layer_scale is not None:
            if config.register_tokens:
                sizes |= {"num_register_tokens": config.register_tokens}
                return transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**sizes))
            return transformers.Dinov2Model(transformers.Dinov2Config(**sizes, mlp_ratio=4))
        sizes |= {"intermediate_size": config.hidden_dim, "num_labels": config.num_classes}
        if config.distilled:
            return transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**sizes))
        return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes))


@pytest.mark.parametrize("name", [model.name for model in PAPERS])
def test_parameters_and_flops_are_those_of_transformers(name) -> None:
    """FLOPs: torch's own counter over the products that the twin really makes. Registers: the class token's position,
    which our files have folded into the class token, has a row of its own there."""
    from torch.utils.flop_counter import FlopCounterMode

    config = get_model(name).config
    twin = _transformers_twin(config).eval()
    mask_token = sum(p.numel() for key, p in twin.named_parameters() if key.endswith("mask_token"))
    folded = config.embed_dim if "reg4" in name else 0
    assert count_parameters(config) == sum(p.numel() for p in twin.parameters()) - mask_token - folded
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(torch.empty(1, 3, *config.image_size, device="meta"))
    assert forward_flops(config) == counter.get_total_flops()


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "huge"])
@pytest.mark.parametrize(
    ("patch", "image"), [(8, 224), (14, 224), (16, 224), (32, 224), (8, 384), (16, 384), (32, 384)]
)
def test_every_size_patch_and_resolution_has_its_name(size, patch, image) -> None:
    config = get_model(f"vit_{size}_patch{patch}_{image}").config
    assert (config.patch_size, config.image_size) == (patch, (image, image))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vit_base_patch16_224.augreg_in21k", "did you mean vit_base_patch16_224[,?]"),  # timm's name with its weights
        ("vit_bse_patch16_224", "did you mean vit_base_patch16_224[,?]"),
        ("deit_base_distiled_patch16_384", "did you mean deit_base_distilled_patch16_384[,?]"),
        ("vit_small_patch14_dinov2_reg4", "vit_small_patch14_reg4_dinov2[,?]"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint) -> None:
    with pytest.raises(VitportError, match=f"No model is named '{name}': .*{hint}") as caught:
        get_model(name)
    assert "\n" not in str(caught.value)


def test_a_name_like_no_other_is_answered_without_a_guess() -> None:
    with pytest.raises(VitportError, match=r"No model is named 'resnet50': `vitport models` lists the \d+ names"):
        get_model("resnet50")


def test_patterns_match_as_in_a_shell() -> None:
    assert [model.name for model in list_models("deit_base_*")] == [
        "deit_base_patch16_224",
        "deit_base_patch16_384",
        "deit_base_distilled_patch16_224",
        "deit_base_distilled_patch16_384",
    ]
    assert [model.name for model in list_models("vit_[sbl]*dinov2")] == [
        "vit_small_patch14_dinov2",
        "vit_base_patch14_dinov2",
        "vit_large_patch14_dinov2",
        "vit_small_patch14_reg4_dinov2",
        "vit_base_patch14_reg4_dinov2",
        "vit_large_patch14_reg4_dinov2",
    ]
    assert [model.name for model in list_models("vit_tiny_patch?_224")] == ["vit_tiny_patch8_224"]
    assert [model.name for model in list_models("vit_[ts]*_patch32_384")] == [
        "vit_tiny_patch32_384",
        "vit_small_patch32_384",
    ]
    assert list_models("nothing like it") == []
    assert list_models("b[ae]se_patch16_clip_224") == []
    assert [model.name for model in list_models("xsmall_patch16_clip_224")] == ["vit_xsmall_patch16_clip_224"]


def test_no_name_stands_for_two_models() -> None:
    names = [model.name for family in FAMILIES.values() for model in family.models()]
    assert len(names) == len(set(names)) == len(list_models())
    assert not set(names) & {name for family in FAMILIES.values() for name in family.unsupported()}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_model_that_is_not_computed_is_refused_by_name_with_the_reason(name) -> None:
    with pytest.raises(VitportError, match=f"{name} is not supported: "):
        get_model(name)


def test_preprocessing_belongs_to_the_usual_weights() -> None:
    assert get_model("vit_base_patch16_224").preprocessing.mean == (0.5, 0.5, 0.5)
    assert get_model("deit_base_patch16_224").preprocessing.mean == (0.485, 0.456, 0.406)
    assert get_model("vit_small_patch14_dinov2").preprocessing.crop_fraction == 1.0
    assert get_model("deit_base_patch16_224").preprocessing.crop_fraction == 0.9
    assert all(model.preprocessing.size == model.config.image_size for model in list_models())
    assert all(get_model(model.name) is model for model in list_models())


@pytest.mark.parametrize(
    "name",
    [
        "samvit_base_patch16", "hiera_base_224", "xcit_tiny_12_p8_224", "maxvit_tiny_tf_224",
        "efficientvit_b0", "mvitv2_tiny", "vit_tiny_r_s16_p8_224", "dinov2_vits14",
    ],
)  # fmt: skip
def test_a_name_of_another_architecture_is_no_misspelling(name: str) -> None:
    """The nearest names would be of models that compute something else."""
    with pytest.raises(VitportError) as caught:
        get_model(name)
    assert "did you mean" not in str(caught.value)
