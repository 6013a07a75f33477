"""Files run by their own names. Oracles: tests/numpy_reference.py on canonical names, and transformers' own classes.

Tolerance 1e-12 of the largest output: float64 rounding, measured at most 4e-15.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file

import conversion
from tests import numpy_reference
from tests.conversion.test_roundtrips import FLAVOURS, fitted, holders
from tests.random_weights import random_images, random_params
from tests.small_configs import CONFIGS
from vit_parity.semantics import semantics_of_file
from vit_spec import ViTConfig

TOLERANCE = 1e-12
BASE = ViTConfig(
    image_size=12, patch_size=4, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=48, num_classes=5, norm_eps=1e-6
)


def _assert_runs_as(path, config, params, **options) -> None:
    images = random_images(config, 2, seed=3)
    expected = numpy_reference.forward(config, params, images)
    found = semantics_of_file(path, config, **options).run(images.transpose(0, 2, 3, 1))["head"]
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_option_means_what_it_means_under_canonical_names(name, tmp_path) -> None:
    config = CONFIGS[name]
    params = random_params(config, seed=1)
    conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "w", format="timm")
    _assert_runs_as(tmp_path / "w", config, params)


@pytest.mark.parametrize("flavour", list(FLAVOURS))
def test_every_writable_format_means_the_same_under_its_own_names(flavour, tmp_path) -> None:
    config = BASE.replace(**FLAVOURS[flavour])
    params = fitted(config, random_params(config, seed=1))
    for name in (*holders(config), "flax"):
        conversion.save(conversion.Checkpoint.of(config, params), tmp_path / name, format=name, activation="keep")
        _assert_runs_as(tmp_path / name, config, params)


SMALL = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 41, "image_size": 12,
    "patch_size": 4,
}  # fmt: skip
PEERS = {
    "vit": (transformers.ViTForImageClassification, transformers.ViTConfig, {"hidden_act": "gelu_pytorch_tanh"}),
    "deit": (transformers.DeiTForImageClassificationWithTeacher, transformers.DeiTConfig, {"layer_norm_eps": 1e-5}),
    "deit-one-head": (transformers.DeiTForImageClassification, transformers.DeiTConfig, {}),
    "dinov2": (transformers.Dinov2ForImageClassification, transformers.Dinov2Config, {}),
    "dinov2-swiglu": (transformers.Dinov2ForImageClassification, transformers.Dinov2Config, {"use_swiglu_ffn": True}),
    "dinov2-registers": (
        transformers.Dinov2WithRegistersForImageClassification, transformers.Dinov2WithRegistersConfig, {}
    ),
    "siglip": (transformers.SiglipForImageClassification, transformers.SiglipConfig, {}),
    "clip-classifier": (transformers.CLIPForImageClassification, transformers.CLIPConfig, {}),
    "clip": (transformers.CLIPVisionModelWithProjection, transformers.CLIPVisionConfig, {"projection_dim": 6}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PEERS))
def test_what_transformers_writes_is_run_as_transformers_runs_it(name, tmp_path) -> None:
    kind, make_config, options = PEERS[name]
    torch.manual_seed(1)
    config = (
        make_config(vision_config=SMALL) if "vision_config" in vars(make_config()) else make_config(**SMALL | options)
    )
    if name != "clip":
        config.num_labels = 5
    model = kind(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(tmp_path / "peer")
    images = random_images(BASE, 2, seed=3)
    with torch.no_grad():
        output = model(torch.tensor(images))
    expected = (output.image_embeds if name == "clip" else output.logits).numpy()
    known = conversion.load(tmp_path / "peer").config
    found = semantics_of_file(tmp_path / "peer", known).run(images.transpose(0, 2, 3, 1))["head"]
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_rounding_activation_and_head_can_be_those_of_the_conversion(tmp_path) -> None:
    config = BASE.replace(representation_size=None)
    params = random_params(config, seed=1)
    conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "w", format="timm")
    rounded = {name: array.astype(np.float16).astype(np.float64) for name, array in params.items()}
    _assert_runs_as(tmp_path / "w", config, rounded, dtype=np.dtype(np.float16))
    tanh = config.replace(activation="gelu_tanh")
    images = random_images(config, 2, seed=3)
    expected = numpy_reference.forward(tanh, params, images)
    found = semantics_of_file(tmp_path / "w", config, activation="gelu_tanh").run(images.transpose(0, 2, 3, 1))
    assert np.abs(found["head"] - expected).max() <= TOLERANCE * np.abs(expected).max()
    _assert_runs_as(tmp_path / "w", config.replace(num_classes=0), params, head=False)


def _as_mmpretrain(name: str) -> str:
    pairs = [
        ("blocks.", "layers."), ("patch_embed.proj", "patch_embed.projection"), (".norm", ".ln"),
        ("mlp.fc1", "ffn.layers.0.0"), ("mlp.fc2", "ffn.layers.1"), ("ls1.gamma", "attn.gamma1.weight"),
        ("ls2.gamma", "ffn.gamma2.weight"),
    ]  # fmt: skip
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    if name.startswith("head"):
        return f"head.layers.{name}"
    return "backbone." + ("ln1" + name.removeprefix("norm") if name.startswith("norm.") else name)


def _as_chunked(name: str) -> str:
    return re.sub(r"^blocks\.(\d+)", r"blocks.0.\1", name)


def _as_clip(name: str) -> str:
    pairs = [
        ("blocks.", "transformer.resblocks."), ("cls_token", "class_embedding"), ("norm_pre", "ln_pre"),
        ("pos_embed", "positional_embedding"), ("patch_embed.proj", "conv1"), ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"), (".norm", ".ln_"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
        ("head.weight", "proj"),
    ]  # fmt: skip
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return "visual." + ("ln_post" + name.removeprefix("norm") if name.startswith("norm.") else name)


CLIP = BASE.replace(pre_norm=True, patch_bias=False, activation="quick_gelu", norm_eps=1e-5)


@pytest.mark.parametrize(
    ("rename", "config"),
    [(_as_mmpretrain, BASE.replace(layer_scale=1.0)), (_as_chunked, BASE.replace(layer_scale=1.0)), (_as_clip, CLIP)],
)
def test_formats_that_are_only_read_mean_the_same_under_their_own_names(rename, config, tmp_path) -> None:
    params = random_params(config, seed=1)
    if rename is _as_clip:
        params["head.bias"][:] = 0
    arrays = {rename(name): array for name, array in params.items() if rename is not _as_clip or name != "head.bias"}
    if rename is _as_clip:
        arrays["visual.class_embedding"] = arrays["visual.class_embedding"].reshape(-1)
        arrays["visual.positional_embedding"] = arrays["visual.positional_embedding"][0]
        arrays["visual.proj"] = arrays["visual.proj"].T.copy()
    save_file(arrays, tmp_path / "w")
    assert conversion.load(tmp_path / "w", model=config).provenance.format != "timm"
    _assert_runs_as(tmp_path / "w", config, params)
