"""Checkpoints of timm's train.py and of Lightning, whose options say more than the model's name.

Oracle: the forward pass that timm documents, in torch's own functions; tests/peer runs timm's train.py models.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import conversion
from tests.conversion.config_json.test_timm import CONFIG, SIZES, _timm
from tests.random_weights import random_images, random_params
from vit_parity.capture import torch_activations
from vit_parity.frameworks import torch_model
from vit_spec import ViTConfig, VitportError

NAME = "vit_tiny_patch16_224"


def _saved(path: Path, config: ViTConfig, /, **content: Any) -> dict[str, np.ndarray]:
    params = random_params(config, seed=2, dtype=np.float32)
    torch.save({"state_dict": {name: torch.from_numpy(array) for name, array in params.items()}, **content}, path)
    return params


def _arguments(pooling: str | None = None, **keywords: Any) -> argparse.Namespace:
    """Some of train.py's hundred arguments."""
    return argparse.Namespace(
        model=NAME, gp=pooling, model_kwargs=SIZES | keywords, num_classes=5, in_chans=None, img_size=384, lr=1e-3
    )


CASES = {
    "heads": (CONFIG.replace(num_heads=2), _arguments(num_heads=2), {"heads": 2}),
    "activation": (CONFIG, _arguments(act_layer="relu"), {"heads": 3, "act": "relu"}),
    "the mean, by --gp": (
        CONFIG.replace(pool="avg", final_norm="pooled"), _arguments("avg"), {"heads": 3, "pool": "avg"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CASES))
def test_train_py_s_arguments_override_the_name(case: str, tmp_path: Path) -> None:
    """float64 against float64: 1e-12 is a thousand roundings of values near one."""
    config, arguments, by_hand = CASES[case]
    params = _saved(tmp_path / "best.pth.tar", config, arch=NAME, args=arguments)
    images = random_images(config, seed=0, batch=2).transpose(0, 2, 3, 1)
    expected = _timm(params, images, **by_hand)
    checkpoint = conversion.load(tmp_path / "best.pth.tar")
    found = torch_activations(torch_model(checkpoint, "float64"), images)["head"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    plain = _timm(params, images, heads=3)
    assert np.abs(plain - expected).max() > 1e-3, "the name alone would be another model"


def test_a_value_that_no_config_holds_is_refused_by_its_name(tmp_path: Path) -> None:
    _saved(tmp_path / "w.pth", CONFIG, args=_arguments(attn_layer="diff"))
    with pytest.raises(VitportError, match=r"timm's record of arguments in the file has attn_layer='diff'"):
        conversion.load(tmp_path / "w.pth")


def test_a_name_that_train_py_did_not_train_is_refused(tmp_path: Path) -> None:
    _saved(tmp_path / "w.pth", CONFIG, args=_arguments())
    with pytest.raises(VitportError, match=f"is a {NAME} by timm's record of arguments in the file"):
        conversion.load(tmp_path / "w.pth", model="vit_small_patch16_224")


def test_another_program_s_arguments_decide_nothing(tmp_path: Path) -> None:
    _saved(tmp_path / "w.pth", CONFIG, args=argparse.Namespace(model=NAME, lr=1e-3))
    with pytest.raises(VitportError, match="does not say its num_heads"):
        conversion.load(tmp_path / "w.pth")


FULL = ViTConfig(
    image_size=(16, 16), patch_size=16, embed_dim=192, depth=12, num_heads=3, num_classes=2, drop_path_rate=0.0
)
OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "Lightning": ({"hyper_parameters": {"lr": 1, "net": {"num_heads": 6}}}, "num_heads=6.*--heads"),
    "a Namespace": ({"args": argparse.Namespace(layer_norm_eps=1e-5, nhead=3)}, "layer_norm_eps=1e-05.*--eps"),
    "a dict": ({"config": {"act_layer": "silu", "global_pool": "token"}}, "act_layer='silu'.*--activation"),
}


@pytest.mark.parametrize("what", list(OPTIONS))
def test_options_that_contradict_the_name_are_told(what: str, tmp_path: Path) -> None:
    """Such names have no fixed meaning, so they are not followed; stating the fact settles it."""
    content, told = OPTIONS[what]
    _saved(tmp_path / "w.ckpt", FULL, **content)
    with pytest.raises(VitportError, match=told):
        conversion.load(tmp_path / "w.ckpt", model=NAME)
    stated = {"num_heads": 6, "norm_eps": 1e-6, "activation": "gelu"}
    assert conversion.load(tmp_path / "w.ckpt", model=NAME, facts=stated).config.num_heads == 6


def test_options_that_agree_or_mean_something_else_pass(tmp_path: Path) -> None:
    agreeing: dict[str, Any] = {
        "num_heads": 3,
        "act_layer": None,
        "global_pool": "attn",
        "hidden_act": "unheard of",
        "heads": "a, b",
    }
    agreeing["text"] = {"num_heads": 8}
    _saved(tmp_path / "w.ckpt", FULL, hyper_parameters=agreeing)
    assert conversion.load(tmp_path / "w.ckpt", model=NAME).config.num_heads == 3
