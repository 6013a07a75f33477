"""Hugging Face folders that transformers itself wrote, read by us. Oracle: transformers' weights, cut by hand.

Logits against transformers are compared in tests/cross; here every tensor is.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

import conversion
from vit_spec import VitportError

SIZES = {"hidden_size": 12, "num_hidden_layers": 11, "num_attention_heads": 3, "image_size": 12, "patch_size": 4}
VIT = SIZES | {"intermediate_size": 20}
DINO = SIZES | {"mlp_ratio": 2}
LABELS = {"num_labels": 5}
MODELS = {
    "ViTModel": (transformers.ViTModel, transformers.ViTConfig(**VIT)),
    "ViTForImageClassification": (transformers.ViTForImageClassification, transformers.ViTConfig(**VIT, **LABELS)),
    "DeiTModel": (transformers.DeiTModel, transformers.DeiTConfig(**VIT)),
    "DeiTForImageClassification": (transformers.DeiTForImageClassification, transformers.DeiTConfig(**VIT, **LABELS)),
    "DeiTForImageClassificationWithTeacher": (
        transformers.DeiTForImageClassificationWithTeacher,
        transformers.DeiTConfig(**VIT, **LABELS),
    ),
    "Dinov2Model": (transformers.Dinov2Model, transformers.Dinov2Config(**DINO)),
    "Dinov2Model-swiglu": (transformers.Dinov2Model, transformers.Dinov2Config(**DINO, use_swiglu_ffn=True)),
    "Dinov2ForImageClassification": (
        transformers.Dinov2ForImageClassification,
        transformers.Dinov2Config(**DINO, **LABELS),
    ),
    "Dinov2WithRegistersModel": (
        transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig(**DINO),
    ),
}


@pytest.fixture(params=list(MODELS))
def model(request) -> torch.nn.Module:
    cls, config = MODELS[request.param]
    model = cls(config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("on_disk_names", [True, False], ids=["file names", "memory names"])
def test_every_tensor_arrives_at_its_place(model, on_disk_names, tmp_path) -> None:
    model.save_pretrained(tmp_path, save_original_format=on_disk_names)
    checkpoint = conversion.load(tmp_path)
    ours, theirs = checkpoint.params, {name: p.detach().numpy() for name, p in model.state_dict().items()}
    at = next(name.removesuffix("embeddings.cls_token") for name in theirs if name.endswith("embeddings.cls_token"))
    layers = f"{at}encoder.layer" if f"{at}encoder.layer.0.norm1.weight" in theirs else f"{at}layers"
    for i in (0, 2, 10):
        rows = [theirs[f"{layers}.{i}.attention.{part}_proj.weight"] for part in "qkv"]
        assert (ours[f"blocks.{i}.attn.qkv.weight"] == np.concatenate(rows)).all()
        assert (ours[f"blocks.{i}.attn.qkv.bias"][12:24] == theirs[f"{layers}.{i}.attention.k_proj.bias"]).all()
        assert (ours[f"blocks.{i}.attn.proj.weight"] == theirs[f"{layers}.{i}.attention.o_proj.weight"]).all()
    assert (ours["cls_token"] == theirs[f"{at}embeddings.cls_token"]).all()
    assert (ours["pos_embed"] == theirs[f"{at}embeddings.position_embeddings"]).all()
    read = sum(array.size for array in ours.values())
    set_aside = theirs.get(f"{at}embeddings.mask_token", np.empty(0)).size
    assert read + set_aside == sum(array.size for array in theirs.values())


def test_config_json_decides_what_shapes_do_not_show(model, tmp_path) -> None:
    model.config.hidden_act = "gelu_new"
    model.config.layer_norm_eps = 1e-12
    model.save_pretrained(tmp_path)
    config = conversion.load(tmp_path).config
    swiglu = getattr(model.config, "use_swiglu_ffn", False)
    assert (config.num_heads, config.norm_eps, config.activation) == (3, 1e-12, "silu" if swiglu else "gelu_tanh")
    registers = type(model).__name__ == "Dinov2WithRegistersModel"
    assert config.pos_embed_resize == ("torch-bicubic-antialias" if registers else "torch-bicubic")


def test_shards_read_as_one_file_does(tmp_path) -> None:
    model = transformers.ViTForImageClassification(MODELS["ViTForImageClassification"][1])
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole, shards = conversion.load(tmp_path / "whole").params, conversion.load(tmp_path / "shards").params
    assert set(whole) == set(shards)
    assert all((whole[name] == shards[name]).all() for name in whole)


def test_a_missing_shard_is_named(tmp_path) -> None:
    model = transformers.ViTForImageClassification(MODELS["ViTForImageClassification"][1])
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(VitportError, match=f"missing: {gone.name}"):
        conversion.load(tmp_path)


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(VitportError, match="points outside the folder"):
        conversion.load(tmp_path)


def test_preprocessing_and_labels_are_read(tmp_path) -> None:
    config = transformers.ViTConfig(
        **VIT, id2label={0: "cat", 1: "dog", 10: "eel", 2: "fox", **dict.fromkeys(range(3, 10), "x")}
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({
        "do_resize": True, "size": {"height": 12, "width": 12}, "resample": 2, "do_normalize": True,
        "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
    }))  # fmt: skip
    checkpoint = conversion.load(tmp_path)
    assert checkpoint.labels is not None
    assert (checkpoint.labels[0], checkpoint.labels[2], checkpoint.labels[10]) == ("cat", "fox", "eel")
    preprocessing = checkpoint.preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (preprocessing.size, preprocessing.resize, preprocessing.interpolation) == ((12, 12), "squash", "bilinear")


def test_a_centre_crop_is_a_share_of_the_shorter_side(tmp_path) -> None:
    transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({
        "size": {"shortest_edge": 16}, "do_center_crop": True, "crop_size": {"height": 12, "width": 12}, "resample": 3,
    }))  # fmt: skip
    preprocessing = conversion.load(tmp_path).preprocessing
    assert (preprocessing.resize, preprocessing.crop_fraction, preprocessing.interpolation) == (
        "shortest",
        0.75,
        "bicubic",
    )


def test_an_unknown_activation_is_refused_by_name(tmp_path) -> None:
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, hidden_act="mish"))
    model.save_pretrained(tmp_path)
    with pytest.raises(VitportError, match="hidden_act='mish'"):
        conversion.load(tmp_path)
