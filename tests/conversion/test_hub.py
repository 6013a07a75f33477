"""``hf://`` out of a cache laid out as huggingface_hub lays it out. Oracles: the files that were put there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import transformers
from huggingface_hub import constants
from safetensors.numpy import save_file

import conversion
from conversion.hub import local
from tests.conversion.canaries import assert_same_tensors
from tests.random_weights import random_params
from vit_spec import VitportError, get_model

SHA, OTHER = "a" * 40, "b" * 40
SMALL = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 41, "image_size": 12,
    "patch_size": 4,
}  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def _snapshot(cache, repo: str, sha: str = SHA, ref: str = "main"):
    root = cache / f"models--{repo.replace('/', '--')}"
    folder = root / "snapshots" / sha
    folder.mkdir(parents=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / ref).write_text(sha)
    return folder


def test_a_path_on_this_machine_stays_as_it_is(tmp_path) -> None:
    assert local(tmp_path / "w") == tmp_path / "w"


def test_a_model_in_the_cache_is_read_as_its_folder_is(cache) -> None:
    """Written by transformers, so the names are not ours."""
    folder = _snapshot(cache, "me/tiny")
    transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL)).save_pretrained(folder)
    found = conversion.load("hf://me/tiny")
    assert_same_tensors(found.params, conversion.load(folder).params)
    assert found.provenance.source == "hf://me/tiny"


def test_a_revision_is_the_one_that_was_asked_for(cache) -> None:
    for sha, ref, classes in ((SHA, "main", 2), (OTHER, "v1", 5)):
        config = transformers.ViTConfig(**SMALL, num_labels=classes)
        transformers.ViTForImageClassification(config).save_pretrained(_snapshot(cache, "me/tiny", sha, ref))
    assert conversion.load("hf://me/tiny").config.num_classes == 2
    assert conversion.load("hf://me/tiny@v1").config.num_classes == 5


def test_timms_config_json_gives_the_model_the_preprocessing_and_the_labels(cache) -> None:
    """``vit_tiny_patch16_224`` with a head of three classes, as timm pushes it to the Hub."""
    folder = _snapshot(cache, "timm/vit_tiny")
    config = get_model("vit_tiny_patch16_224").config.replace(num_classes=3)
    params = random_params(config, seed=1, dtype=np.float32)
    save_file(params, folder / "model.safetensors")
    told = {
        "architecture": "vit_tiny_patch16_224", "num_classes": 3, "label_names": ["ant", "bee", "cat"],
        "pretrained_cfg": {
            "tag": "augreg_in21k_ft_in1k", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 0.9,
            "interpolation": "bicubic", "input_size": [3, 224, 224],
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told))
    found = conversion.load("hf://timm/vit_tiny")
    assert (found.config.num_heads, found.config.norm_eps, found.config.activation) == (3, 1e-6, "gelu")
    assert found.provenance.origins["num_heads"] == "config.json, which names vit_tiny_patch16_224"
    assert (found.preprocessing.mean, found.preprocessing.crop_fraction) == ((0.5, 0.5, 0.5), 0.9)
    assert found.labels == ("ant", "bee", "cat")
    assert any("Google trained with the tanh form" in note for note in found.provenance.notes)
    assert_same_tensors(found.params, params)


def test_a_lone_npz_is_the_file_itself(cache) -> None:
    folder = _snapshot(cache, "google/vit")
    config = get_model("vit_tiny_patch16_224").config.replace(depth=1, activation="gelu_tanh", num_classes=2)
    config = config.replace(pos_embed_resize="scipy-zoom")
    checkpoint = conversion.Checkpoint.of(config, random_params(config, seed=1, dtype=np.float32))
    conversion.save(checkpoint, folder / "vit.npz", format="google")
    assert conversion.load("hf://google/vit").config.activation == "gelu_tanh"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("hf://me", "is not an address on the Hub"),
        ("hf://me/a/b", "is not an address on the Hub"),
        ("hf://me/a@", "is not an address on the Hub"),
        ("hf://me/absent", "the Hub is unreachable, and huggingface_hub's cache does not have it"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(address, words, cache) -> None:
    with pytest.raises(VitportError, match=words):
        conversion.load(address)


def test_a_model_without_weights_is_one_sentence(cache) -> None:
    (_snapshot(cache, "me/empty") / "config.json").write_text("{}")
    with pytest.raises(VitportError, match="has no weights to read"):
        conversion.load("hf://me/empty")
