"""Image encoders of language models: Qwen3-VL and Qwen3.5 in transformers, and timm's names for them and DeepSeek's.

Oracle: transformers' own classes; for DeepSeek's, timm (``tests/peer/test_timm.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from safetensors.numpy import load_file, save_file

import conversion
import vit_jax
import vit_torch
import vitport
from conversion.identify.vit import check_named
from tests.conversion.canaries import assert_same_tensors
from tests.random_weights import random_params
from vit_spec import VitportError, get_model

GRID, SIDE, TABLE = (4, 6), 8, 8
"""Rows and columns of patches, pixels of a patch, rows of the table of positions."""
SIZES: dict[str, Any] = {
    "hidden_size": 24, "depth": 3, "num_heads": 2, "intermediate_size": 40, "patch_size": SIDE, "out_hidden_size": 16,
    "num_position_embeddings": TABLE**2,
}  # fmt: skip
MODELS: dict[str, tuple[Any, Any]] = {
    "Qwen3-VL": (t.Qwen3VLVisionModel, t.Qwen3VLVisionConfig(**SIZES, deepstack_visual_indexes=[1])),
    "Qwen3.5": (t.models.qwen3_5.Qwen3_5VisionModel, t.models.qwen3_5.Qwen3_5VisionConfig(**SIZES)),
}
QWEN = get_model("qwen3_vit_88m_enc").config.replace(
    image_size=TABLE * SIDE, patch_size=SIDE, embed_dim=24, depth=3, num_heads=2, mlp_hidden_dim=40
)


def randomised(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    kind, config = MODELS[name]
    model = kind(config).eval()
    with torch.no_grad():
        for at, parameter in model.named_parameters():
            wide = parameter.ndim > 1 and "pos_embed" not in at
            parameter.normal_(std=parameter[0].numel() ** -0.5 if wide else 0.5)
            parameter.add_(1.0 if parameter.ndim == 1 and "norm" in at and at.endswith("weight") else 0.0)
    return model


def patches_first_by_squares(pixels: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """What transformers reads, two equal frames in squares of 2 x 2 patches, and where each patch comes from."""
    (rows, columns), channels = GRID, pixels.shape[0]
    cut = pixels.reshape(channels, rows, SIDE, columns, SIDE).permute(1, 3, 0, 2, 4)
    order = np.arange(rows * columns).reshape(rows // 2, 2, columns // 2, 2).transpose(0, 2, 1, 3).reshape(-1)
    frames = cut.reshape(rows * columns, channels, 1, SIDE, SIDE).expand(-1, -1, 2, -1, -1)
    return frames.reshape(rows * columns, -1)[order], order


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """transformers computes angles in float32. Measured, of the largest value: 8e-8 in PyTorch's float64, 8e-7 in JAX's
    float32; with the columns first 0.2."""
    model = randomised(name)
    model.save_pretrained(tmp_path)
    pixels = torch.randn(3, GRID[0] * SIDE, GRID[1] * SIDE, generator=torch.Generator().manual_seed(1)).double()
    flat, order = patches_first_by_squares(pixels)
    with torch.no_grad():
        told = model.double()(flat, torch.tensor([[1, *GRID]])).last_hidden_state.numpy()
    expected = np.empty_like(told)
    expected[order] = told
    checkpoint = conversion.load(tmp_path)
    assert checkpoint.config == QWEN
    size = (GRID[0] * SIDE, GRID[1] * SIDE)
    in_torch = vit_torch.create_model(weights=tmp_path, image_size=size).double().eval()
    in_jax = vit_jax.create_model(weights=tmp_path, image_size=size)
    in_jax.eval()
    with torch.no_grad():
        actual = in_torch.forward_features(pixels[None])[0].numpy()
    other = np.asarray(in_jax.forward_features(pixels.numpy().transpose(1, 2, 0)[None].astype(np.float32)))[0]
    largest = np.abs(expected).max()
    assert np.abs(actual - expected).max() < 1e-6 * largest
    assert np.abs(other - expected).max() < 1e-5 * largest


def test_the_encoder_of_a_whole_model_is_read_and_proven(tmp_path: Path) -> None:
    text = t.Qwen3VLTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=32, head_dim=8,
    )  # fmt: skip
    config = t.Qwen3VLConfig(
        text_config=text.to_dict(), vision_config=MODELS["Qwen3-VL"][1].to_dict(), tie_word_embeddings=False
    )
    whole = t.Qwen3VLForConditionalGeneration(config)
    whole.model.visual.load_state_dict(randomised("Qwen3-VL").state_dict())
    whole.save_pretrained(tmp_path / "whole")
    randomised("Qwen3-VL").save_pretrained(tmp_path / "alone")
    read = conversion.load(tmp_path / "whole")
    assert read.config == QWEN
    assert_same_tensors(read.params, conversion.load(tmp_path / "alone").params)
    done = vitport.convert(tmp_path / "whole", tmp_path / "timm.safetensors", to="timm", activation="keep", verify=True)
    assert done.certificate is not None
    assert done.certificate.passed
    again = conversion.load(tmp_path / "timm.safetensors")
    assert again.config == QWEN
    assert_same_tensors(again.params, read.params)


def test_frames_that_differ_add_up(tmp_path: Path) -> None:
    randomised("Qwen3.5").save_pretrained(tmp_path)
    kernel = load_file(tmp_path / "model.safetensors")["patch_embed.proj.weight"]
    assert np.abs(kernel[:, :, 0] - kernel[:, :, 1]).max() > 0.1
    np.testing.assert_allclose(
        conversion.load(tmp_path).params["patch_embed.proj.weight"], kernel.astype(np.float64).sum(2), rtol=1e-7, atol=0
    )


@pytest.mark.parametrize("name", ["qwen3_vit_88m_enc", "deepseek_vit_412m_enc"])
def test_a_classifier_of_timm_is_refused_under_its_encoders_name(name: str) -> None:
    """Between mean and head it has a norm that no tensor shows, so the head would give other logits."""
    named, base = get_model(name).config, name.removesuffix("_enc")
    fitted = named.replace(num_classes=5)
    with pytest.raises(VitportError, match=f"has no head, .* 5 classes, as {base}'s, which is not supported: between"):
        check_named(name, named, fitted, any_head=False)
    check_named(name, named, fitted, any_head=True)
    check_named(name, named, named, any_head=False)
    with pytest.raises(VitportError, match=f"{base} is not supported: .* without factors; its encoder is {name}"):
        get_model(base)


def test_deepseeks_biases_are_in_attention_alone(tmp_path: Path) -> None:
    """The file of timm's names says so by what it lacks, and how it turns by what stands behind the encoder."""
    config = get_model("deepseek_vit_412m_enc").config.replace(
        image_size=(28, 42), embed_dim=24, depth=2, num_heads=2, mlp_ratio=4.0, mlp_hidden_dim=40
    )
    checkpoint = conversion.Checkpoint.of(config, random_params(config, 1, np.float32))
    conversion.save(checkpoint, tmp_path / "timm.safetensors", format="timm")
    held = load_file(tmp_path / "timm.safetensors")
    assert {name.rpartition(".")[0] for name in held if name.endswith("bias") and name.startswith("blocks.0")} == {
        "blocks.0.attn.qkv", "blocks.0.attn.proj"
    }  # fmt: skip
    save_file(held | {"aligner.fc1.weight": np.ones((2, 2), np.float32)}, tmp_path / "bare.safetensors")
    facts = {"num_heads": 2, "activation": "silu", "norm_eps": 1e-6, "norm": "rmsnorm"}
    read = conversion.load(tmp_path / "bare.safetensors", facts=facts | {"image_size": (28, 42)})
    assert read.config == config
    assert_same_tensors(read.params, checkpoint.params)
    both = [config.replace(mlp_bias=None), config.replace(proj_bias=False, mlp_bias=None)]
    assert [it.mlp_bias for it in (config, *both)] == [False, None, None]
    assert config.replace(proj_bias=False) == both[1]
