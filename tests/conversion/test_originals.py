"""Files of the original code bases: their names, wrappers and leftovers.

Oracle: the canonical canaries, carried to each family's names by hand in the test.
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import conversion
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_params
from tests.random_weights import random_params
from vit_spec import VitportError

CONFIG = ASYMMETRIC.replace(image_size=12, representation_size=None)
SCALED = CONFIG.replace(layer_scale=1e-5)


def _state(params: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in params.items()}


def _load(path: Path, state: dict, config=CONFIG) -> conversion.Checkpoint:
    file = path / f"{len(list(path.iterdir()))}.pth"  # a new one each time: the one before is still mapped
    torch.save(state, file)
    return conversion.load(file, model=config)


def test_deit_3_calls_its_layer_scales_gamma(tmp_path: Path) -> None:
    config = SCALED.replace(pos_embed="patch")
    params = canary_params(config)
    state = {n.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): t for n, t in _state(params).items()}
    assert sum("gamma_" in name for name in state) == 22
    checkpoint = _load(tmp_path, {"model": state}, config)
    assert_same_tensors(checkpoint.params, params)
    assert checkpoint.config == config


def test_an_alias_beside_the_name_it_stands_for_is_refused(tmp_path: Path) -> None:
    state = _state(canary_params(SCALED))
    with pytest.raises(VitportError, match=r"blocks\.0\.ls1\.gamma is given twice"):
        _load(tmp_path, state | {"blocks.0.gamma_1": state["blocks.0.ls1.gamma"]}, SCALED)


@pytest.mark.parametrize("chunks", [0, 4])
@pytest.mark.parametrize("swiglu", [False, True])
def test_dinov2_with_registers_in_chunks_or_not(tmp_path: Path, chunks: int, swiglu: bool) -> None:
    config = SCALED.replace(register_tokens=3, num_classes=0)
    config = config.replace(mlp="swiglu_packed", activation="silu") if swiglu else config
    params = canary_params(config)
    size = math.ceil(config.depth / chunks) if chunks else 1
    state = {"mask_token": torch.zeros(1, 24)}
    for name, tensor in _state(params).items():
        _, _, rest = name.partition("blocks.")
        number, _, leaf = rest.partition(".")
        if swiglu:
            leaf = leaf.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        block = f"blocks.{int(number) // size}.{number}.{leaf}" if chunks and rest else f"blocks.{number}.{leaf}"
        state[block if rest else name.replace("reg_token", "register_tokens")] = tensor
    checkpoint = _load(tmp_path, {"teacher": {f"backbone.{name}": t for name, t in state.items()}}, config)
    assert_same_tensors(checkpoint.params, params)
    assert checkpoint.config == config
    assert any("mask_token" in note for note in checkpoint.provenance.notes)


def test_the_decoder_of_mae_is_set_aside(tmp_path: Path) -> None:
    config = CONFIG.replace(num_classes=0)
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_pos_embed": torch.zeros(1, 10, 8),
        "decoder_embed.weight": torch.zeros(8, 24),
        "decoder_blocks.0.attn.qkv.weight": torch.zeros(24, 8),
        "decoder_pred.bias": torch.zeros(48),
    }
    params = canary_params(config)
    options = argparse.Namespace(lr=1e-3, output_dir="out")
    checkpoint = _load(tmp_path, {"model": _state(params) | decoder, "args": options, "epoch": 3}, config)
    assert_same_tensors(checkpoint.params, params)
    assert any("4 tensors decoder_*" in note for note in checkpoint.provenance.notes)


def test_maes_fine_tuned_norm_means_the_mean_of_the_patches(tmp_path: Path) -> None:
    """Its file never says so, and a named model that pools the class token must not hide it."""
    params = canary_params(CONFIG.replace(final_norm="pooled", pool="avg"))
    checkpoint = _load(tmp_path, {"model": _state(params)}, CONFIG)
    assert (checkpoint.config.final_norm, checkpoint.config.pool) == ("pooled", "avg")
    told = _load(tmp_path, {"model": _state(params)}, CONFIG.replace(final_norm="pooled"))
    assert told.config.pool == "token"


def test_a_linear_probe_behind_a_batch_norm_is_refused(tmp_path: Path) -> None:
    state = {n: t for n, t in _state(canary_params(CONFIG)).items() if not n.startswith("head.")}
    state |= {"head.0.running_mean": torch.zeros(24), "head.1.weight": torch.zeros(7, 24)}
    with pytest.raises(VitportError, match="a linear-probe head after a BatchNorm"):
        _load(tmp_path, {"model": state})


def test_a_head_of_several_layers_is_no_projector_and_is_not_dropped(tmp_path: Path) -> None:
    state = {n: t for n, t in _state(canary_params(CONFIG)).items() if not n.startswith("head.")}
    with pytest.raises(VitportError, match=r"not one linear layer .*head\.2\.weight 7x30.*--head drop"):
        _load(tmp_path, state | {"head.0.weight": torch.zeros(30, 24), "head.2.weight": torch.zeros(7, 30)})


def test_the_projector_of_dino_is_set_aside(tmp_path: Path) -> None:
    config = CONFIG.replace(num_classes=0)
    params = canary_params(config)
    heads = {"head.mlp.0.weight": torch.zeros(8, 24), "head.last_layer.weight_g": torch.zeros(9, 1)}
    inside = _load(tmp_path, _state(params) | heads, config)
    teacher = {f"module.backbone.{name}": t for name, t in _state(params).items()}
    beside = _load(tmp_path, {"teacher": teacher | {f"module.{n}": t for n, t in heads.items()}}, config)
    for checkpoint in (inside, beside):
        assert_same_tensors(checkpoint.params, params)
        assert any("head." in note or "module.head" in note for note in checkpoint.provenance.notes)


def test_of_moco_the_base_encoder_is_read_without_its_projector(tmp_path: Path) -> None:
    config = CONFIG.replace(num_classes=0)
    params = canary_params(config)
    head = {"head.0.weight": torch.zeros(8, 24), "head.1.running_mean": torch.zeros(8), "head.3.weight": torch.zeros(9)}
    state = {f"module.base_encoder.{name}": t for name, t in (_state(params) | head).items()}
    state |= {f"module.momentum_encoder.{name}": t + 1 for name, t in (_state(params) | head).items()}
    state |= {"module.predictor.0.weight": torch.zeros(8, 8)}
    checkpoint = _load(tmp_path, {"state_dict": state, "arch": "vit"}, config)
    assert_same_tensors(checkpoint.params, params)
    assert any("projector" in note for note in checkpoint.provenance.notes)


def test_a_patch_embedding_stored_as_a_matrix_is_channel_first(tmp_path: Path) -> None:
    params = canary_params(CONFIG)
    state = _state(params)
    state["patch_embed.proj.weight"] = torch.stack(
        [
            torch.cat([kernel[channel].reshape(-1) for channel in range(3)])
            for kernel in state["patch_embed.proj.weight"]
        ]
    )
    assert_same_tensors(_load(tmp_path, state).params, params)
    with pytest.raises(VitportError, match="47 columns are not three channels of a square patch"):
        _load(tmp_path, state | {"patch_embed.proj.weight": torch.zeros(24, 47)})


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_a_namespace_of_options_is_read_but_never_what_it_could_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VitportError, match="opening it could run code"):
        _load(tmp_path, {"model": _state(canary_params(CONFIG)), "args": argparse.Namespace(x=_Runs())})
    assert not (tmp_path / "ran").exists()


def test_a_torchscript_archive_says_how_to_get_its_weights_out(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "w.pt")
    with pytest.raises(VitportError, match="is a TorchScript archive"):
        conversion.load(tmp_path / "w.pt", model=CONFIG)


CLIP = CONFIG.replace(pre_norm=True, patch_bias=False, activation="quick_gelu", norm_eps=1e-5)
OPENAI = {
    "norm1": "ln_1", "attn.qkv.weight": "attn.in_proj_weight", "attn.qkv.bias": "attn.in_proj_bias",
    "attn.proj": "attn.out_proj", "norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
}  # fmt: skip


def _openai(params: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    state = _state(params)
    named = {
        "class_embedding": state["cls_token"][0, 0], "positional_embedding": state["pos_embed"][0],
        "conv1.weight": state["patch_embed.proj.weight"], "proj": state["head.weight"].T.contiguous(),
    }  # fmt: skip
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, number, leaf = name.split(".", 2)
            for ours, theirs in OPENAI.items():
                leaf = theirs if leaf == ours else leaf.replace(f"{ours}.", f"{theirs}.")
            named[f"transformer.resblocks.{number}.{leaf}"] = tensor
        elif name.startswith(("norm.", "norm_pre.")):
            named[name.replace("norm_pre", "ln_pre").replace("norm.", "ln_post.")] = tensor
    return {f"visual.{name}": tensor for name, tensor in named.items()}


def test_openais_clip_is_read_and_goes_to_hugging_face(tmp_path: Path) -> None:
    params = canary_params(CLIP) | {"head.bias": np.zeros(7, np.float32)}
    text = {
        "token_embedding.weight": torch.zeros(9, 8),
        "positional_embedding": torch.zeros(7, 8),
        "transformer.resblocks.0.ln_1.weight": torch.zeros(8),
        "logit_scale": torch.zeros(()),
    }
    checkpoint = _load(tmp_path, _openai(params) | text, CLIP)
    assert_same_tensors(checkpoint.params, params)
    assert checkpoint.config == CLIP.replace(pos_embed_resize="torch-bicubic")
    conversion.save(checkpoint, tmp_path / "hf", format="huggingface")
    assert_same_tensors(conversion.load(tmp_path / "hf").params, params)


def test_a_head_with_a_bias_has_no_place_in_clip_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(VitportError, match="bias other than zero"):
        checkpoint = conversion.Checkpoint.of(CLIP, canary_params(CLIP))
        conversion.save(checkpoint, tmp_path / "hf", format="huggingface-clip")
    assert list(tmp_path.iterdir()) == []


MMPRETRAIN = {
    "norm1": "ln1", "norm2": "ln2", "mlp.fc1": "ffn.layers.0.0", "mlp.fc2": "ffn.layers.1",
    "ls1.gamma": "attn.gamma1.weight", "ls2.gamma": "ffn.gamma2.weight",
}  # fmt: skip


def test_mmpretrain_is_read(tmp_path: Path) -> None:
    params = canary_params(SCALED)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in _state(params).items():
        if name.startswith("blocks."):
            _, number, leaf = name.split(".", 2)
            for ours, theirs in MMPRETRAIN.items():
                leaf = theirs if leaf == ours else leaf.replace(f"{ours}.", f"{theirs}.")
            state[f"backbone.layers.{number}.{leaf}"] = tensor
        elif name.startswith("head."):
            state[name.replace("head.", "head.layers.head.")] = tensor
        else:
            state["backbone." + name.replace("norm.", "ln1.").replace("patch_embed.proj", "patch_embed.projection")] = (
                tensor
            )
    checkpoint = _load(tmp_path, {"state_dict": state, "meta": {"epoch": 3}}, SCALED)
    assert checkpoint.provenance.format == "mmpretrain"
    assert_same_tensors(checkpoint.params, params)


@pytest.mark.parametrize("container", ["safetensors", "torch"])
@pytest.mark.parametrize("key", ["teacher", "student"])
def test_one_of_two_models_under_prefixes_is_chosen_by_key(container, key, tmp_path) -> None:
    """DINO's training files made flat. Oracle: the tensors that went in; no key is a sentence that lists the keys."""
    config = CONFIG.replace(num_classes=0)
    models = {name: random_params(config, seed=at, dtype=np.float32) for at, name in enumerate(("student", "teacher"))}
    flat = {f"{model}.backbone.{name}": array for model, params in models.items() for name, array in params.items()}
    path = tmp_path / "w"
    if container == "safetensors":
        save_file(flat, path)
    else:
        torch.save({name: torch.tensor(array) for name, array in flat.items()}, path)
    found = conversion.load(path, model=config, weights_key=key)
    for name, array in models[key].items():
        np.testing.assert_array_equal(found.params[name], array)
    with pytest.raises(VitportError, match=r"under student\.backbone, teacher\.backbone: choose one by weights_key"):
        conversion.load(path, model=config)
