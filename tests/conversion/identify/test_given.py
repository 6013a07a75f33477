"""Facts that a user states. Oracle: tests/numpy_reference.py with the config that the weights were made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file

import conversion
import vit_torch
import vitport
from conversion.opening import Opening
from tests import numpy_reference
from tests.random_weights import random_images, random_params
from vit_parity.semantics import semantics_of_file
from vit_spec import UnstatedError, ViTConfig, VitportError

CONFIG = ViTConfig(
    image_size=(16, 12), patch_size=4, embed_dim=24, depth=2, num_heads=6, num_classes=5, norm_eps=1e-3, pool="avg",
    activation="quick_gelu",
)  # fmt: skip
"""A size that no registered name has; the table's rows are not a square number, with the class token's or without."""
FACTS: dict[str, Any] = {
    "num_heads": 6, "norm_eps": 1e-3, "activation": "quick_gelu", "pool": "avg", "image_size": (16, 12)
}  # fmt: skip
IMAGES = random_images(CONFIG, 2, seed=1)
TOLERANCE = 1e-12
"""Of the largest output: float64 rounding, measured at most 2e-15."""


@pytest.fixture(scope="module")
def params() -> dict[str, np.ndarray]:
    return random_params(CONFIG, seed=0)


@pytest.fixture
def bare(params, tmp_path) -> Path:
    save_file({name: array.astype(np.float64) for name, array in params.items()}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def _assert_right(checkpoint: conversion.Checkpoint, params: dict[str, np.ndarray]) -> None:
    expected = numpy_reference.forward(CONFIG, params, IMAGES)
    found = numpy_reference.forward(checkpoint.config, dict(checkpoint.params), IMAGES)
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_facts_are_stated_one_by_one(bare, params) -> None:
    checkpoint = vitport.load(bare, facts=FACTS)
    assert checkpoint.config == CONFIG
    assert checkpoint.provenance.origins["num_heads"] == "the caller"
    _assert_right(checkpoint, params)


@pytest.mark.parametrize("missing", list(FACTS))
def test_each_fact_that_is_missing_is_asked_for_by_its_option(missing, bare) -> None:
    facts = {name: value for name, value in FACTS.items() if name != missing}
    option = {"num_heads": "--heads", "norm_eps": "--eps"}.get(missing, f"--{missing.replace('_', '-')}")
    with pytest.raises(UnstatedError, match=option) as caught:
        vitport.load(bare, facts=facts)
    assert caught.value.fields == (missing,)


WRONG = {"embed_dim": 48, "depth": 3, "num_classes": 7, "qkv_bias": False, "layer_scale": 1e-5, "image_size": (32, 12),
         "pool": "map", "mlp_ratio": 3.0, "in_channels": 1, "class_token": False}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_a_fact_that_contradicts_the_tensors_is_refused(name, params, tmp_path) -> None:
    config = CONFIG.replace(image_size=16)  # its size is known
    save_file({n: a.astype(np.float32) for n, a in random_params(config, seed=0).items()}, tmp_path / "w.safetensors")
    facts = {n: v for n, v in FACTS.items() if n != "image_size"}
    assert conversion.load(tmp_path / "w.safetensors", facts=facts).config == config
    with pytest.raises(VitportError, match=rf"{name}=.* contradicts the file|pool="):
        conversion.load(tmp_path / "w.safetensors", facts={**facts, name: WRONG[name]})


def test_a_fact_that_contradicts_the_files_own_words_is_refused(bare, tmp_path) -> None:
    vitport.convert(bare, tmp_path / "told", to="timm", facts=FACTS)
    assert vitport.load(tmp_path / "told", facts=FACTS).config == CONFIG
    with pytest.raises(VitportError, match=r"num_heads=3 \(--heads\) contradicts .*=6 from the file's own record"):
        vitport.load(tmp_path / "told", facts={"num_heads": 3})
    with pytest.raises(VitportError, match=r"num_head='x' is not a field of ViTConfig: did you mean num_heads"):
        vitport.load(bare, facts={"num_head": "x"})


def test_a_config_file_states_them_all(bare, params, tmp_path) -> None:
    (tmp_path / "model.json").write_text(CONFIG.to_json())
    assert vitport.load(bare, config=tmp_path / "model.json").config == CONFIG
    told = {"heads": 6, **FACTS}
    del told["heads"], told["pool"]
    (tmp_path / "part.json").write_text(json.dumps(told))
    with pytest.raises(UnstatedError, match="--pool"):
        vitport.load(bare, config=tmp_path / "part.json")
    checkpoint = vitport.load(bare, config=tmp_path / "part.json", facts={"global_pool": "avg"})
    _assert_right(checkpoint, params)
    with pytest.raises(VitportError, match="num_heads is given as 6 in the config file and as 3"):
        vitport.load(bare, config=tmp_path / "model.json", facts={"num_heads": 3})
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(VitportError, match="instead of a JSON object"):
        vitport.load(bare, config=tmp_path / "bad.json")
    with pytest.raises(VitportError, match="cannot be read"):
        vitport.load(bare, config=tmp_path / "none.json")


def test_a_size_that_is_spoken_of_explains_a_table_that_could_be_square(tmp_path) -> None:
    """Nine rows are a class token's and 4x2 patches, or 3x3 patches."""
    config = CONFIG.replace(image_size=(16, 8))
    save_file({n: a.astype(np.float32) for n, a in random_params(config, seed=0).items()}, tmp_path / "w.safetensors")
    facts = {name: value for name, value in FACTS.items() if name != "image_size"}
    assert vitport.load(tmp_path / "w.safetensors", facts=facts).config.image_size == (12, 12)
    done = vitport.convert(tmp_path / "w.safetensors", tmp_path / "out", to="timm", facts=facts, image_size=(16, 8))
    assert done.checkpoint.config == config
    assert vitport.create_model(weights=tmp_path / "w.safetensors", **{**FACTS, "image_size": (16, 8)}).config == config


def test_the_image_size_of_a_conversion_states_what_nothing_else_does(bare, params, tmp_path) -> None:
    facts = {name: value for name, value in FACTS.items() if name != "image_size"}
    done = vitport.convert(bare, tmp_path / "out", to="timm", facts=facts, image_size=(16, 12), verify=True)
    assert done.certificate is not None
    assert done.certificate.passed
    _assert_right(done.checkpoint, params)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_create_model_takes_its_fields_as_facts(framework, bare, params) -> None:
    model = vitport.create_model(weights=bare, framework=framework, **FACTS)
    assert model.config == CONFIG


def test_the_weights_of_a_folder_whose_config_json_is_elsewhere(tmp_path) -> None:
    config = transformers.ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=6, intermediate_size=48,
                                    image_size=[16, 12], patch_size=4, layer_norm_eps=1e-3, num_labels=5,
                                    hidden_act="gelu_new")  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.ViTForImageClassification(config).double().eval()
    theirs.save_pretrained(tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").rename(tmp_path / "w.safetensors")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(IMAGES.astype(np.float64))).logits.numpy()
    facts = {"num_heads": 6, "norm_eps": 1e-3, "activation": "gelu_tanh", "image_size": (16, 12)}
    by_file: dict[str, Any] = {"config": tmp_path / "folder" / "config.json"}
    for options, opening in (({"facts": facts}, Opening()), (by_file, Opening(**by_file))):
        checkpoint = vitport.load(tmp_path / "w.safetensors", **options)
        loaded = numpy_reference.forward(checkpoint.config, dict(checkpoint.params), IMAGES)
        own = semantics_of_file(tmp_path / "w.safetensors", checkpoint.config, opening=opening)
        for found in (loaded, own.run(IMAGES.transpose(0, 2, 3, 1))["head"]):
            assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    (tmp_path / "w.safetensors").rename(tmp_path / "folder" / "model.safetensors")
    with pytest.raises(VitportError, match="leave out --config"):
        vitport.load(tmp_path / "folder", **by_file)


def test_facts_of_a_model_in_torch_change_what_it_computes(bare, params) -> None:
    model = vit_torch.create_model(weights=bare, **FACTS).double().eval()
    expected = numpy_reference.forward(CONFIG, params, IMAGES)
    with torch.no_grad():
        found = model(torch.from_numpy(IMAGES.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())  # weights were float32
