"""Folders that transformers wrote, through our models and back into transformers. Oracle: transformers' own outputs.

Everything is float64, so a wrong epsilon or activation shows. Tolerance 1e-12 of outputs of order 1: rounding of
float64 (1.1e-16) over some thousand additions in each of eleven blocks; measured at most 3e-15.
"""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file

import conversion
import vit_torch
from conversion.config_json import huggingface as huggingface_config
from conversion.config_json import preprocessor
from conversion.containers import huggingface_folder
from tests.conversion.canaries import assert_same_tensors
from tests.conversion.randomised import randomised
from tests.random_weights import random_params
from vit_spec import Preprocessing, ViTConfig, VitportError

SIZES = {"hidden_size": 24, "num_hidden_layers": 11, "num_attention_heads": 3, "patch_size": 4}
OBLONG = SIZES | {"image_size": [12, 20], "intermediate_size": 40, "layer_norm_eps": 1e-3}
SQUARE = SIZES | {"image_size": 12, "layer_norm_eps": 1e-3}
CLIP = SQUARE | {"intermediate_size": 40}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
NAMED = {"id2label": {0: "cat", 1: "dog", 2: "eel", 3: "fox", 4: "gnu"}}
t = transformers
FOLDERS: dict[str, tuple[type, transformers.PreTrainedConfig, str]] = {
    "ViTModel": (t.ViTModel, t.ViTConfig(**OBLONG, pooler_output_size=10), "vit"),
    "ViT-tanh-no-bias": (
        t.ViTForImageClassification,
        t.ViTConfig(**OBLONG, **NAMED, hidden_act="gelu_pytorch_tanh", qkv_bias=False),
        "vit",
    ),
    "ViT-quick": (t.ViTForImageClassification, t.ViTConfig(**OBLONG, **NAMED, hidden_act="quick_gelu"), "vit"),
    "DeiTModel": (t.DeiTModel, t.DeiTConfig(**OBLONG, pooler_output_size=10), "deit-one-head"),
    "DeiT-one-head": (t.DeiTForImageClassification, t.DeiTConfig(**OBLONG, **NAMED), "deit-one-head"),
    "DeiT-teacher": (t.DeiTForImageClassificationWithTeacher, t.DeiTConfig(**OBLONG, **NAMED), "deit"),
    "Dinov2": (t.Dinov2Model, t.Dinov2Config(**SQUARE, mlp_ratio=2), "dinov2"),
    "Dinov2-swiglu": (t.Dinov2Model, t.Dinov2Config(**SQUARE, mlp_ratio=3, use_swiglu_ffn=True), "dinov2"),
    "Dinov2-classifier": (
        t.Dinov2ForImageClassification,
        t.Dinov2Config(**SQUARE, **NAMED, hidden_act="silu"),
        "dinov2",
    ),
    "Dinov2-registers": (
        t.Dinov2WithRegistersModel,
        t.Dinov2WithRegistersConfig(**SQUARE, num_register_tokens=3),
        "dinov2",
    ),
    "Dinov2-registers-classifier": (
        t.Dinov2WithRegistersForImageClassification,
        t.Dinov2WithRegistersConfig(**SQUARE, **NAMED, num_register_tokens=3, qkv_bias=False),
        "dinov2",
    ),
    "CLIP": (t.CLIPVisionModel, t.CLIPVisionConfig(**CLIP), "clip"),
    "CLIP-erf": (t.CLIPVisionModel, t.CLIPVisionConfig(**CLIP, hidden_act="gelu"), "clip"),
    "CLIP-projection": (t.CLIPVisionModelWithProjection, t.CLIPVisionConfig(**CLIP, projection_dim=7), "clip"),
    "CLIP-classifier": (
        t.CLIPForImageClassification,
        t.CLIPConfig(vision_config=CLIP, text_config=TEXT, **NAMED),
        "clip-classifier",
    ),
    "SigLIP": (t.SiglipVisionModel, t.SiglipVisionConfig(**CLIP), "siglip"),
    "SigLIP-classifier": (
        t.SiglipForImageClassification,
        t.SiglipConfig(vision_config=CLIP | {"vision_use_head": False}, text_config=TEXT, **NAMED),
        "siglip-classifier",
    ),
}


def random_image(config: transformers.PreTrainedConfig) -> torch.Tensor:
    size = getattr(config, "vision_config", config).image_size
    torch.manual_seed(2)
    return torch.randn(2, 3, *((size, size) if isinstance(size, int) else size), dtype=torch.float64)


def answer(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a user of the class reads: logits, an embedding, or else the pooled features."""
    with torch.no_grad():
        out = model(x)
    return next(out[key] for key in ("logits", "image_embeds", "pooler_output") if key in out)


def ours(checkpoint: conversion.Checkpoint, x: torch.Tensor) -> torch.Tensor:
    model = vit_torch.VisionTransformer(checkpoint.config).double().eval()
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in checkpoint.params.items()})
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("kind", ["CLIP", "SigLIP"])
def test_the_vision_half_of_a_two_tower_folder_is_read_and_the_text_half_set_aside(kind: str, tmp_path: Path) -> None:
    whole, config = (
        (t.CLIPModel, t.CLIPConfig(vision_config=CLIP, text_config=TEXT, projection_dim=7))
        if kind == "CLIP"
        else (t.SiglipModel, t.SiglipConfig(vision_config=CLIP, text_config=TEXT))
    )
    model, x = randomised(whole, config), random_image(config)
    model.save_pretrained(tmp_path)
    checkpoint = conversion.load(tmp_path)
    with torch.no_grad():
        expected = model.get_image_features(x).pooler_output
    torch.testing.assert_close(ours(checkpoint, x), expected, rtol=1e-12, atol=1e-12)
    assert any("text_model.*: the text half" in note for note in checkpoint.provenance.notes)


def test_a_nested_config_without_its_defaults_has_transformers_defaults(tmp_path: Path) -> None:
    """As openai/clip-vit-base-patch32 was first published; eleven blocks' twelve heads cannot be seen in the shapes."""
    config = t.CLIPConfig(vision_config=CLIP | {"layer_norm_eps": 1e-5, "num_attention_heads": 12}, text_config=TEXT)
    t.CLIPModel(config).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    written["vision_config"] = {"patch_size": 4, "image_size": 12, "hidden_size": 24}
    (tmp_path / "config.json").write_text(json.dumps(written))
    config = conversion.load(tmp_path).config
    assert (config.num_heads, config.norm_eps, config.activation, config.depth) == (12, 1e-5, "quick_gelu", 11)


def test_the_unread_pooling_of_a_siglip_classifier_is_set_aside(tmp_path: Path) -> None:
    config = t.SiglipConfig(vision_config=CLIP, text_config=TEXT, **NAMED)
    model, x = randomised(t.SiglipForImageClassification, config), random_image(config)
    model.save_pretrained(tmp_path)
    checkpoint = conversion.load(tmp_path)
    torch.testing.assert_close(ours(checkpoint, x), answer(model, x), rtol=1e-12, atol=1e-12)
    assert any("head.*: the pooling" in note for note in checkpoint.provenance.notes)


def read_back(folder: Path) -> transformers.PreTrainedModel:
    """The class that config.json names, by way of the Auto classes; no key may be missing, left over or misshapen."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    auto = t.AutoModelForImageClassification if "Classification" in architecture else t.AutoModel
    if architecture.endswith("WithProjection"):
        auto = getattr(t, architecture)
    model, info = auto.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    assert type(model).__name__ == architecture
    assert not any(info.values()), info
    return model.eval()


@pytest.mark.parametrize("name", list(FOLDERS))
def test_a_folder_gives_the_same_numbers_in_our_model_and_back_in_transformers(name: str, tmp_path: Path) -> None:
    cls, config, short = FOLDERS[name]
    theirs, x = randomised(cls, config), random_image(config)
    theirs.save_pretrained(tmp_path / "theirs")
    checkpoint = conversion.load(tmp_path / "theirs")
    expected = answer(theirs, x)
    torch.testing.assert_close(ours(checkpoint, x), expected, rtol=1e-12, atol=1e-12)
    conversion.save(checkpoint, tmp_path / "ours", format="huggingface")
    again = conversion.load(tmp_path / "ours")
    assert again.provenance.format == f"huggingface-{short}"
    assert (again.config, again.labels) == (checkpoint.config, checkpoint.labels)
    assert_same_tensors(again.params, checkpoint.params)
    back = read_back(tmp_path / "ours")
    torch.testing.assert_close(answer(back, x), expected, rtol=1e-13, atol=1e-13)
    if config.id2label[0] == "cat":
        assert checkpoint.labels == tuple(config.id2label.values())
        assert back.config.id2label == config.id2label
    theirs_state, back_state = theirs.state_dict(), back.state_dict()
    assert set(theirs_state) == set(back_state)
    idle = ("mask_token", "post_layernorm" if short == "clip-classifier" else "mask_token")  # read by no forward pass
    assert all(torch.equal(theirs_state[key], back_state[key]) for key in theirs_state if not any(map(key.count, idle)))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("registers", [0, 1])
def test_a_model_without_a_pooler_leaves_none_missing_and_none_to_chance(tmp_path, classes, registers) -> None:
    """ViTModel and DeiTModel have a pooler always; here it must hand on the class token as it is."""
    config = ViTConfig(
        image_size=(12, 20), patch_size=4, num_classes=classes, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=41
    ).replace(register_tokens=registers, pos_embed="all" if registers else "prefix")
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 0))
    conversion.save(checkpoint, tmp_path / "hf", format="huggingface")
    x = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    torch.testing.assert_close(answer(read_back(tmp_path / "hf"), x), ours(checkpoint, x), rtol=1e-12, atol=1e-12)
    again = conversion.load(tmp_path / "hf")
    assert again.config == config.replace(pos_embed_resize="torch-bicubic")
    assert_same_tensors(again.params, checkpoint.params)


def test_a_pooler_that_is_neither_tanh_nor_the_identity_is_refused(tmp_path: Path) -> None:
    t.ViTModel(t.ViTConfig(**OBLONG, pooler_act="linear")).save_pretrained(tmp_path)
    with pytest.raises(VitportError, match="pooler_act='linear'"):
        conversion.load(tmp_path)


@pytest.mark.parametrize("resize", ["squash", "shortest"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_transformers_prepares_an_image_as_we_do(tmp_path: Path, resize, interpolation) -> None:
    """Oracle: the image processor that AutoImageProcessor makes of our file. Tolerance 1e-6: float32 rounding of
    (x / 255 - mean) / std against x * (1 / 255); the resized pixels themselves are equal. Reading the file back
    gives transformers' rule for odd margins, and writing warns where ours differs."""
    preprocessing = Preprocessing(
        size=(28, 28), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize=resize, interpolation=interpolation
    )
    config = ViTConfig(image_size=(28, 28), patch_size=14, num_classes=3, embed_dim=8, depth=1, num_heads=2)
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 0), preprocessing)
    notes = conversion.save(checkpoint, tmp_path / "hf", format="huggingface")
    read = conversion.load(tmp_path / "hf").preprocessing
    if resize == "shortest":
        assert "not written: preprocessing.cropping='torchvision' (readers take 'transformers')" in notes
        preprocessing = preprocessing.replace(cropping="transformers")
    assert read == preprocessing.replace(crop_fraction=read.crop_fraction)
    pixels = np.random.default_rng(0).integers(0, 256, (53, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    theirs = t.AutoImageProcessor.from_pretrained(tmp_path / "hf")(Image.fromarray(pixels), return_tensors="np")
    mine = conversion.load_image(tmp_path / "image.png", preprocessing).transpose(2, 0, 1)
    np.testing.assert_allclose(theirs["pixel_values"][0], mine, rtol=0, atol=2e-6)


@pytest.mark.parametrize("side", [224, 384, 518])
def test_the_side_to_scale_to_survives_rounding(side: int) -> None:
    for edge in range(side, 2 * side):
        json_file = {
            "size": {"shortest_edge": edge},
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
        }
        read = preprocessor.preprocessing(json_file, {"model_type": "dinov2"}, 3)
        assert huggingface_config.preprocessor_json(read)["size"] == {"shortest_edge": edge}


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"qk_norm": True}, "huggingface-vit", "qk_norm=True"),
        ({"representation_size": 3}, "huggingface-vit", "representation_size=3"),
        ({"distilled": True, "num_classes": 0}, "huggingface-deit", "num_classes=0"),
        ({"layer_scale": 1.0, "num_classes": 5, "pool": "avg", "final_norm": "pooled"}, "huggingface-dinov2", "pooled"),
        ({"layer_scale": 1.0}, "huggingface-vit", r"layer_scale=1.0: .* or add --fold layer-scale"),
        ({"qk_scale": 0.6}, "huggingface-vit", r"qk_scale=0.6: .* or add --fold qk-scale"),
        ({"pre_norm": True}, "huggingface-clip", "patch_bias=True"),
        ({"pool": "map", "class_token": False, "num_classes": 4}, "huggingface-siglip", "num_classes=4"),
        (
            {"pool": "avg", "class_token": False, "image_size": (12, 20)},
            "huggingface-siglip-classifier",
            "12x20 pixels",
        ),
    ],
)
def test_what_a_class_cannot_hold_is_named_before_anything_is_written(tmp_path, changes, name, words) -> None:
    config = ViTConfig(image_size=(12, 12), patch_size=4, embed_dim=24, depth=1, num_heads=3).replace(**changes)
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 0))
    with pytest.raises(VitportError, match=f"{name} cannot hold .*{words}"):
        conversion.save(checkpoint, tmp_path / "hf", format=name)
    assert list(tmp_path.iterdir()) == []


def test_names_of_classes_and_half_precision_survive(tmp_path: Path) -> None:
    config = ViTConfig(image_size=(12, 12), patch_size=4, num_classes=12, embed_dim=24, depth=1, num_heads=3)
    params = random_params(config, 0, ml_dtypes.bfloat16)
    labels = tuple(f"Käse {k}" for k in range(12))
    conversion.save(conversion.Checkpoint.of(config, params, labels=labels), tmp_path / "hf", format="huggingface")
    back = t.AutoModelForImageClassification.from_pretrained(tmp_path / "hf")
    assert tuple(back.config.id2label[k] for k in range(12)) == labels
    assert back.dtype == torch.bfloat16
    assert back.classifier.weight.view(torch.int16).numpy().tobytes() == params["head.weight"].tobytes()


@pytest.mark.parametrize("classes", [0, 3])
def test_a_large_model_is_written_in_shards_that_transformers_loads_without_a_key_missing(
    tmp_path: Path, monkeypatch, classes: int
) -> None:
    """Oracle: ``from_pretrained``, whose sums then are ours, and the sizes of the files."""
    limit = 20_000
    monkeypatch.setattr(huggingface_folder, "MAX_SHARD_BYTES", limit)
    config = ViTConfig(
        image_size=(12, 20), patch_size=4, num_classes=classes, embed_dim=24, depth=4, num_heads=3, mlp_hidden_dim=41
    )
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 0))
    conversion.save(checkpoint, tmp_path / "hf", format="huggingface")
    shards = sorted((tmp_path / "hf").glob("*.safetensors"))
    assert [shard.name for shard in shards] == [
        f"model-{at + 1:05d}-of-{len(shards):05d}.safetensors" for at in range(len(shards))
    ]
    assert len(shards) > 4
    for shard in shards:
        tensors = load_file(shard)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= limit or len(tensors) == 1
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    whole = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert index["weight_map"] == {name: shard.name for shard in shards for name in load_file(shard)}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    x = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    torch.testing.assert_close(answer(read_back(tmp_path / "hf"), x), ours(checkpoint, x), rtol=1e-12, atol=1e-12)
    assert_same_tensors(conversion.load(tmp_path / "hf").params, checkpoint.params)
