"""What a record, config.json or name says against the tensors. Oracle: the model that the tensors were made with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import conversion
from conversion.containers import safetensors_file
from conversion.tensors.table import TensorTable
from tests.random_weights import random_params
from vit_spec import ViTConfig, VitportError, get_model

SMALL = ViTConfig(
    image_size=16, patch_size=4, num_classes=3, embed_dim=24, depth=2, num_heads=3, register_tokens=2, layer_scale=1.0,
    pre_norm=True, mlp_hidden_dim=40,
)  # fmt: skip


def recorded(path: Path, config: ViTConfig, drop=lambda name: False) -> Path:
    """A file whose record says ``config``, without some of its tensors."""
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 3, dtype=np.float32))
    table = {name: array for name, array in checkpoint.params.items() if not drop(name)}
    safetensors_file.write(path, TensorTable.of(table), checkpoint, lambda name: None)
    return path


@pytest.mark.parametrize(("field", "drop"), [
    ("depth", lambda name: name.startswith("blocks.1.")), ("qkv_bias", lambda name: name.endswith("qkv.bias")),
    ("final_norm", lambda name: name.startswith("norm.")), ("pos_embed", lambda name: name == "pos_embed"),
    ("num_classes", lambda name: name.startswith("head.")), ("register_tokens", lambda name: name == "reg_token"),
    ("layer_scale", lambda name: name.endswith(".gamma")), ("pre_norm", lambda name: name.startswith("norm_pre.")),
    ("proj_bias", lambda name: name.endswith(("proj.bias", "fc1.bias", "fc2.bias")) and name.startswith("blocks")),
    ("patch_bias", lambda name: name == "patch_embed.proj.bias"),
])  # fmt: skip
def test_a_record_of_parts_that_are_not_there_is_refused(field, drop, tmp_path) -> None:
    with pytest.raises(VitportError, match=rf"record says .*{field}=") as caught:
        conversion.load(recorded(tmp_path / "w.safetensors", SMALL, drop))
    assert "but the tensors show" in str(caught.value)


@pytest.mark.parametrize("change", [
    {"depth": 3}, {"embed_dim": 48}, {"patch_size": 2}, {"in_channels": 1}, {"num_classes": 4}, {"mlp_ratio": 2.0},
    {"mlp_hidden_dim": 41}, {"mlp": "swiglu_packed"}, {"qkv_bias": False}, {"proj_bias": False}, {"pre_norm": False},
    {"layer_scale": None}, {"register_tokens": 1}, {"class_token": False, "pool": "avg"}, {"distilled": True},
    {"final_norm": "pooled"}, {"pos_embed": "none"}, {"image_size": [32, 16]}, {"patch_norm": True}, {"qk_norm": True},
    {"representation_size": 5}, {"norm_bias": False}, {"patch_bias": False}, {"pool": "map"}, {"block": "parallel"},
])  # fmt: skip
def test_a_record_that_says_something_else_is_refused(change, tmp_path) -> None:
    """Every field that tensors can contradict, one by one."""
    path = recorded(tmp_path / "w.safetensors", SMALL)
    assert conversion.load(path).config == SMALL
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    record = json.loads(header["__metadata__"]["vitport"])
    record["config"] |= change
    if "mlp_ratio" in change:
        record["config"]["mlp_hidden_dim"] = None
    header["__metadata__"]["vitport"] = json.dumps(record)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(VitportError):
        conversion.load(path)


HUGGINGFACE = {
    "hidden_size": 48, "num_hidden_layers": 3, "patch_size": 2, "num_channels": 1, "intermediate_size": 41,
    "image_size": 16, "qkv_bias": False, "id2label": {"0": "a"},
}  # fmt: skip


@pytest.mark.parametrize("key", HUGGINGFACE)
def test_a_config_json_that_contradicts_the_tensors_is_refused(key, tmp_path) -> None:
    """transformers would fill what it does not find with random numbers, or fail."""
    config = ViTConfig(
        image_size=12, patch_size=4, num_classes=7, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=40
    )
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 3, dtype=np.float32), labels=tuple("abcdefg"))
    conversion.save(checkpoint, tmp_path / "hf", format="huggingface-vit", activation="keep")
    assert conversion.load(tmp_path / "hf").config.depth == config.depth
    file = tmp_path / "hf" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: HUGGINGFACE[key]}))
    with pytest.raises(VitportError, match=r"but the (tensors show|head has)"):
        conversion.load(tmp_path / "hf")


@pytest.mark.parametrize(("change", "words"), [
    ({"qkv_bias": False}, "qkv_bias=True"), ({"final_norm": "none"}, "a last norm, but the file holds none"),
    ({"layer_scale": 1.0}, "no LayerScale, but the file holds one"), ({"register_tokens": 4}, "register_tokens=0"),
    ({"class_token": False, "pool": "avg"}, "class_token=True"), ({"mlp_hidden_dim": 100}, "hidden_dim=768"),
    ({"pre_norm": True}, "pre_norm=False"), ({"distilled": True}, "distilled=False"), ({"qk_norm": True}, "qk_norm"),
])  # fmt: skip
def test_a_name_of_other_layers_is_refused(change, words, tmp_path) -> None:
    config = get_model("vit_tiny_patch16_224").config.replace(**change)
    save_file(random_params(config, seed=1, dtype=np.float32), tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match=words):
        conversion.load(tmp_path / "w.safetensors", model="vit_tiny_patch16_224")


def test_a_name_of_other_heads_than_config_json_says_is_refused(tmp_path) -> None:
    config = get_model("vit_tiny_patch16_224").config.replace(num_heads=6)
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 0, dtype=np.float32))
    conversion.save(checkpoint, tmp_path / "hf", format="huggingface-vit", activation="keep")
    assert conversion.load(tmp_path / "hf").config.num_heads == 6
    with pytest.raises(VitportError, match=r"num_heads=3, but config\.json says num_heads=6"):
        conversion.load(tmp_path / "hf", model="vit_tiny_patch16_224")
    assert load_file(tmp_path / "hf" / "model.safetensors")


def test_a_config_whose_heads_do_not_divide_the_width_is_refused_as_the_config(tmp_path) -> None:
    config = ViTConfig(image_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=3)
    save_file(random_params(config, seed=1, dtype=np.float32), tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match=r"The config given does not fit the tensors: embed_dim=24"):
        conversion.load(tmp_path / "w.safetensors", model=config.replace(embed_dim=80, num_heads=16))
