"""timm's folders whose config.json says more than the architecture's name.

Oracle: the forward pass that timm documents, written here with torch's own functions, for the arguments in config.json.
The tensors are those of timm's ``VisionTransformer`` with these arguments: ``norm`` or ``fc_norm`` by its rule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.nn import functional

import conversion
from conversion.config_json import timm as timm_config
from tests.random_weights import random_images, random_params
from vit_parity import Original, verify
from vit_parity.capture import torch_activations
from vit_parity.frameworks import torch_model
from vit_spec import ViTConfig, VitportError

CONFIG = ViTConfig(image_size=(16, 8), patch_size=4, num_classes=5, embed_dim=24, depth=2, num_heads=3)
SIZES = {"img_size": [16, 8], "patch_size": 4, "embed_dim": 24, "depth": 2}
ACTIVATIONS = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "swish": functional.silu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


def _folder(path: Path, config: ViTConfig, config_json: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    path.mkdir(exist_ok=True)
    params = random_params(config, seed=2, dtype=np.float32)
    save_file({prefix + name: array for name, array in params.items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config_json))
    return params


def _json(architecture: str = "vit_tiny_patch16_224", top: dict[str, Any] | None = None, **arguments: Any):
    return {"architecture": architecture, "model_args": SIZES | arguments, "pretrained_cfg": {}} | (top or {})


def _timm(params: dict[str, np.ndarray], images: np.ndarray, heads: int, pool: str = "token", act: str = "gelu"):
    """(B, H, W, 3) -> logits (B, K) in float64."""
    w = {name: torch.from_numpy(array.astype(np.float64)) for name, array in params.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return (
            functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)
            if f"{name}.weight" in w
            else x
        )

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    pixels = torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)
    x = functional.conv2d(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=4).flatten(2).mT
    if "cls_token" in w:
        x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + w["pos_embed"]
    for at in ("blocks.0", "blocks.1"):
        y = norm(x, f"{at}.norm1").transpose(0, 1)  # (N, B, D)
        attended, _ = functional.multi_head_attention_forward(
            y, y, y, y.shape[-1], heads, w[f"{at}.attn.qkv.weight"], w[f"{at}.attn.qkv.bias"], None, None, False, 0.0,
            w[f"{at}.attn.proj.weight"], w[f"{at}.attn.proj.bias"], training=False, need_weights=False,
        )  # fmt: skip
        x = x + attended.transpose(0, 1)
        x = x + linear(ACTIVATIONS[act](linear(norm(x, f"{at}.norm2"), f"{at}.mlp.fc1")), f"{at}.mlp.fc2")
    x = norm(x, "norm")
    pooled = x[:, 0] if pool == "token" else x[:, int("cls_token" in w) :].mean(dim=1)
    return linear(norm(pooled, "fc_norm"), "head").numpy()


CASES = {
    "heads": (CONFIG.replace(num_heads=2), {"num_heads": 2}, {}, {"heads": 2}),
    "activation": (CONFIG, {"act_layer": "relu"}, {}, {"heads": 3, "act": "relu"}),
    "swish": (CONFIG, {"act_layer": "swish"}, {}, {"heads": 3, "act": "swish"}),
    "mean after the norm": (CONFIG.replace(pool="avg"), {"global_pool": "avg", "fc_norm": False}, {},
                             {"heads": 3, "pool": "avg"}),
    "mean before the norm": (CONFIG.replace(pool="avg", final_norm="pooled"), {"global_pool": "avg"}, {},
                             {"heads": 3, "pool": "avg"}),
    "token, then a norm": (CONFIG.replace(final_norm="pooled"), {"global_pool": "token", "fc_norm": True}, {},
                           {"heads": 3}),
    "the top level's pooling": (CONFIG.replace(pool="avg"), {}, {"global_pool": "avg"}, {"heads": 3, "pool": "avg"}),
    "pretrained_cfg's pooling": (CONFIG.replace(pool="avg"), {}, {"pretrained_cfg": {"global_pool": "avg"}},
                                 {"heads": 3, "pool": "avg"}),
    "no class token": (CONFIG.replace(class_token=False, pool="avg", pos_embed="patch"),
                       {"class_token": False, "global_pool": "avg", "fc_norm": False}, {}, {"heads": 3, "pool": "avg"}),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CASES))
def test_model_args_override_the_name(case, tmp_path) -> None:
    """float64 against float64: 1e-12 is a thousand roundings of values near one."""
    config, arguments, top, by_hand = CASES[case]
    params = _folder(tmp_path, config, _json(top=top, **arguments))
    checkpoint = conversion.load(tmp_path)
    images = random_images(config, seed=0, batch=2).transpose(0, 2, 3, 1)
    expected = _timm(params, images, **by_hand)
    np.testing.assert_allclose(
        torch_activations(torch_model(checkpoint, "float64"), images)["head"], expected, rtol=0, atol=1e-12
    )
    other = {**by_hand, "pool": "avg" if by_hand.get("pool", "token") == "token" else "token"}
    if config.class_token:
        assert np.abs(_timm(params, images, **other) - expected).max() > 1e-2, "the oracle must tell poolings apart"


def test_a_timm_wrapper_of_transformers_is_read(tmp_path) -> None:
    told = _json(num_heads=2) | {"model_type": "timm_wrapper", "architectures": ["TimmWrapperForImageClassification"]}
    del told["pretrained_cfg"]
    params = _folder(tmp_path, CONFIG, told, prefix="timm_model.")
    images = random_images(CONFIG, seed=0, batch=2).transpose(0, 2, 3, 1)
    found = torch_activations(torch_model(conversion.load(tmp_path), "float64"), images)["head"]
    np.testing.assert_allclose(found, _timm(params, images, heads=2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"global_pool": "avgmax"}, "global_pool='avgmax'"),
        ({"act_layer": "mish"}, "act_layer='mish'"),
        ({"norm_layer": "batchnorm"}, "norm_layer='batchnorm'"),
        ({"block_fn": "ResPostBlock"}, "block_fn='ResPostBlock'"),
        ({"qkv_fused": 3}, "qkv_fused=3"),
        ({"pos_embed": "sincos"}, "pos_embed='sincos'"),
    ],
)
def test_an_argument_without_a_meaning_here_is_refused_with_its_value(arguments, words, tmp_path) -> None:
    _folder(tmp_path, CONFIG, _json(**arguments))
    with pytest.raises(VitportError, match=words):
        conversion.load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": 3}, "depth=3.*depth=2"),
        ({"embed_dim": 48}, "embed_dim=48.*embed_dim=24"),
        ({"reg_tokens": 4}, "register_tokens=4.*register_tokens=0|pos_embed"),
        ({"global_pool": "avg"}, "final_norm='pooled'.*final_norm='tokens'"),
        ({"in_chans": 1}, "in_channels=1.*in_channels=3"),
    ],
)
def test_arguments_that_the_tensors_contradict_are_refused(arguments, words, tmp_path) -> None:
    _folder(tmp_path, CONFIG, _json(**arguments))
    with pytest.raises(VitportError, match=words):
        conversion.load(tmp_path)


def test_two_poolings_are_refused(tmp_path) -> None:
    _folder(tmp_path, CONFIG, _json(top={"global_pool": "avg"}, global_pool="token"))
    with pytest.raises(VitportError, match="'token' in model_args and 'avg' in its top level"):
        conversion.load(tmp_path)


def test_another_name_than_the_folders_is_refused(tmp_path) -> None:
    _folder(tmp_path, CONFIG, _json())
    with pytest.raises(VitportError, match=r"vit_tiny_patch16_224 by config\.json.*vit_base_patch16_224"):
        conversion.load(tmp_path, model="vit_base_patch16_224")


@pytest.mark.parametrize("wrong", [{"num_heads": 3}, {"pool": "avg"}, {"activation": "gelu_tanh"}])
def test_verify_takes_its_facts_from_the_folder(wrong, monkeypatch, tmp_path) -> None:
    """A reader that misreads config.json is found out; one that reads it right passes."""
    _folder(tmp_path / "source", CONFIG.replace(num_heads=2), _json(num_heads=2))

    def proof(name: str):
        checkpoint = conversion.load(tmp_path / "source")
        conversion.save(checkpoint, tmp_path / name, format="timm")
        return verify(Original(tmp_path / "source", checkpoint), tmp_path / name, conversion.load(tmp_path / name))

    assert proof("right").passed
    true = timm_config.facts
    monkeypatch.setattr(timm_config, "facts", lambda *config: true(*config) | wrong)
    assert not proof("wrong").passed
