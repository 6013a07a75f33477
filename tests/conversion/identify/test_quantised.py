"""Quantised weights and unmerged adapters: refused as what they are, not read as weights."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import orbax.checkpoint
import pytest
import torch
import transformers
from flax import serialization
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

import conversion
from conversion.formats import FORMATS
from conversion.tensors.flax_tree import nest
from conversion.tensors.table import TensorTable
from tests.conversion.bad_files import CONFIG, PARAMS, STATE
from vit_spec import VitportError

QKV = "blocks.0.attn.qkv.weight"


def _refused(path, words: str) -> None:
    with pytest.raises(VitportError, match=words):
        conversion.load(path, model=CONFIG)


@pytest.mark.parametrize("name", [QKV, "patch_embed.proj.weight", "head.bias", "blocks.1.norm2.weight", "pos_embed"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
def test_integers_as_weights(name, dtype, tmp_path) -> None:
    save_file(PARAMS | {name: PARAMS[name].astype(dtype)}, tmp_path / "w.safetensors")
    _refused(tmp_path / "w.safetensors", f"quantised: {name} has dtype {np.dtype(dtype)}")


def test_integers_that_are_no_weights_are_left_alone(tmp_path) -> None:
    """A head's BatchNorm counts its batches, and CLIP keeps position numbers: neither is quantised."""
    config = transformers.CLIPVisionConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, image_size=12, patch_size=4
    )
    model = transformers.CLIPVisionModel(config)
    model.save_pretrained(tmp_path)
    at = next(name for name in model.state_dict() if name.endswith("class_embedding")).removesuffix("class_embedding")
    save_torch(model.state_dict() | {f"{at}position_ids": torch.arange(10)[None]}, tmp_path / "model.safetensors")
    assert conversion.load(tmp_path).config.depth == 2


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ("blocks.0.attn.qkv.SCB", "attn.qkv.SCB lies beside"),
        ("blocks.0.attn.qkv.weight.absmax", "weight.absmax lies beside"),
        ("blocks.0.attn.qkv.weight.quant_state.bitsandbytes__nf4", "nf4 lies beside"),
        ("blocks.0.attn.qkv.weight_scale", "weight_scale lies beside"),
        ("blocks.0.attn.qkv.qweight", "qweight lies beside"),
        ("blocks.0.attn.qkv.scales", "scales lies beside"),
        ("blocks.0.attn.qkv.weight_packed", "weight_packed lies beside"),
        ("blocks.0.attn.qkv.weight_scale_inv", "weight_scale_inv lies beside"),
        ("blocks.0.attn.qkv.W_q", "W_q lies beside"),
        ("blocks.0.attn.qkv.weight._scale", "weight._scale lies beside"),
        ("blocks.0.attn.qkv.codebooks", "codebooks lies beside"),
        ("blocks.0.attn.qkv.weight_fake_quant.scale", "fake_quant.scale lies beside"),
        ("blocks.0.attn.qkv.activation_post_process.min_val", "min_val lies beside"),
        ("blocks.0.attn.qkv.weight_quantizer._amax", "_amax lies beside"),
    ],
)
def test_scales_beside_weights(beside, words, tmp_path) -> None:
    save_file(PARAMS | {beside: np.ones(3, np.float32)}, tmp_path / "w.safetensors")
    _refused(tmp_path / "w.safetensors", words)


def test_a_quantization_config(tmp_path) -> None:
    conversion.save(conversion.Checkpoint.of(CONFIG, PARAMS), tmp_path / "f", format="huggingface", activation="keep")
    told = json.loads((tmp_path / "f" / "config.json").read_text())
    told["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (tmp_path / "f" / "config.json").write_text(json.dumps(told))
    _refused(tmp_path / "f", r"quantization_config \(bitsandbytes\)")


def test_pytorchs_dynamic_quantisation(tmp_path) -> None:
    """The packed weights of ``quantize_dynamic``: a tuple of a quantised matrix and a bias."""
    weight = torch.quantize_per_tensor(STATE[QKV], 0.1, 0, torch.qint8)
    state: dict[str, object] = {name: tensor for name, tensor in STATE.items() if name != QKV}
    state["blocks.0.attn.qkv._packed_params._packed_params"] = (weight, None)
    torch.save(state, tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", "quantised: blocks.0.attn.qkv._packed_params._packed_params has dtype qint8")


@pytest.mark.parametrize(
    "dtype",
    [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu],
)
def test_float8_in_a_pytorch_file(dtype, tmp_path) -> None:
    torch.save(STATE | {QKV: STATE[QKV].to(dtype)}, tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", f"quantised: {QKV} has dtype float8_e")


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.uint8, torch.uint16, torch.bool])
def test_integers_in_a_pytorch_file(dtype, tmp_path) -> None:
    torch.save(STATE | {QKV: STATE[QKV].to(dtype)}, tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", f"quantised: {QKV} has dtype {str(dtype).removeprefix('torch.')}")


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "float8_e4m3fn", "int4"])
def test_kernels_of_jax_in_npz_and_msgpack(dtype, tmp_path) -> None:
    """numpy stores the types that it lacks as bytes without a meaning; msgpack names them."""
    table = FORMATS["google"].names.write(TensorTable.of(PARAMS), CONFIG)
    name = next(name for name in table if name.endswith("Dense_0/kernel"))
    whole = {key: np.asarray(table[key]) for key in table}
    whole[name] = whole[name].astype(getattr(ml_dtypes, dtype, dtype))
    np.savez(tmp_path / "w.npz", **whole)
    _refused(tmp_path / "w.npz", f"quantised: {name} has dtype {dtype if 'int4' != dtype != 'float8_e4m3fn' else 'V1'}")
    (tmp_path / "w.msgpack").write_bytes(serialization.msgpack_serialize(nest(whole)))
    _refused(tmp_path / "w.msgpack", f"quantised: .* has dtype {dtype}")


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "float8_e5m2", "int4"])
def test_kernels_in_orbax(dtype, tmp_path) -> None:
    table = FORMATS["flax"].names.write(TensorTable.of(PARAMS), CONFIG)
    whole = {key: np.asarray(table[key]) for key in table}
    name = "blocks/0/attn/qkv/kernel"
    whole[name] = np.asarray(whole[name].astype(getattr(ml_dtypes, dtype, dtype)))
    orbax.checkpoint.PyTreeCheckpointer(use_ocdbt=False).save(tmp_path / "w", nest(whole))
    _refused(tmp_path / "w", f"quantised: {name} has dtype {dtype}")


@pytest.mark.parametrize("dtype", [np.complex64, np.float128, "<U3", "datetime64[s]", "S4"])
def test_arrays_of_no_floats(dtype, tmp_path) -> None:
    """What is not a number is set aside by name; complex numbers and extended floats are not weights."""
    table = FORMATS["google"].names.write(TensorTable.of(PARAMS), CONFIG)
    whole = {key: np.asarray(table[key]) for key in table}
    whole["head/bias"] = np.zeros(7, dtype)
    np.savez(tmp_path / "w.npz", **whole)
    _refused(tmp_path / "w.npz", r"head.bias (has dtype|\(in the file: head/bias\))")


def test_float8_in_safetensors(tmp_path) -> None:
    save_file(PARAMS | {QKV: PARAMS[QKV].astype(ml_dtypes.float8_e4m3fn)}, tmp_path / "w.safetensors")
    _refused(tmp_path / "w.safetensors", f"quantised: {QKV} has dtype F8_E4M3")


def test_an_unmerged_adapter(tmp_path) -> None:
    prefixed = {f"base_model.model.{name}": tensor for name, tensor in STATE.items()}
    adapter = {"base_model.model.blocks.0.attn.qkv.lora_A.default.weight": torch.ones(2, 24)}
    torch.save(prefixed | adapter, tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", "unmerged LoRA adapter .*lora_A.*adapter_config.json beside it.*merge_and_unload")
