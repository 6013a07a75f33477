"""LoRA adapters merged into their base. Oracle: the same sum in torch, run by transformers' class; and peft's own
merge, where peft is installed.

Tolerance 2e-6 of the largest logit in float32: measured at most 4e-7.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import conversion
import vitport
from tests import numpy_reference
from tests.random_weights import random_images
from vit_spec import VitportError

TOLERANCE = 2e-6
CONFIG = transformers.ViTConfig(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, image_size=12, patch_size=4,
    num_labels=5, id2label={at: f"animal {at}" for at in range(5)},
)  # fmt: skip
IN_MEMORY = {
    "query": "vit.layers.{i}.attention.q_proj",
    "value": "vit.layers.{i}.attention.v_proj",
    "first": "vit.layers.{i}.mlp.fc1",
}
ON_DISK = {
    "query": "vit.encoder.layer.{i}.attention.attention.query",
    "value": "vit.encoder.layer.{i}.attention.attention.value",
    "first": "vit.encoder.layer.{i}.intermediate.dense",
}
LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 12, "base_model_name_or_path": "google/vit-base-patch16-224"}


def _model() -> transformers.ViTForImageClassification:
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(CONFIG).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("base")
    _model().save_pretrained(path)
    return path


def _adapted(path: Path, names: dict[str, str], scale: float, **config: Any) -> torch.nn.Module:
    """An adapter with factors for some layers and a new head in a folder; returns the merged model."""
    model, state = _model(), {}
    for at in range(2):
        for part, ours in IN_MEMORY.items():
            layer = model.get_submodule(ours.format(i=at))
            a, b = torch.randn(4, layer.in_features) * 0.3, torch.randn(layer.out_features, 4) * 0.3
            name = f"base_model.model.{names[part].format(i=at)}"
            state |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
            with torch.no_grad():
                layer.weight += (scale * b.double() @ a.double()).float()
    for name, tensor in (("weight", torch.randn(5, 24)), ("bias", torch.randn(5))):
        state[f"base_model.model.classifier.{name}"] = tensor
        getattr(model.classifier, name).data = tensor
    path.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps(LORA | config))
    return model


def _assert_computes(checkpoint: conversion.Checkpoint, model: torch.nn.Module) -> None:
    images = random_images(checkpoint.config, 2, seed=1)
    with torch.no_grad():
        expected = model(torch.from_numpy(images.astype(np.float32))).logits.numpy()
    found = numpy_reference.forward(checkpoint.config, dict(checkpoint.params), images)
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("names", [IN_MEMORY, ON_DISK], ids=["names in memory", "names of files"])
@pytest.mark.parametrize("root", [False, True], ids=["alpha over rank", "alpha over its root"])
def test_an_adapter_is_merged_into_the_base_that_is_named(names, root, base, tmp_path) -> None:
    model = _adapted(tmp_path / "lora", names, 12 / (2 if root else 4), use_rslora=root)
    for path in (tmp_path / "lora", tmp_path / "lora" / "adapter_model.safetensors"):
        checkpoint = conversion.load(path, base=base)
        _assert_computes(checkpoint, model)
        assert any(f"rank 4 and alpha 12 into {base}" in note for note in checkpoint.provenance.notes)
        assert checkpoint.labels is None  # they were the base's
    done = vitport.convert(tmp_path / "lora", tmp_path / "out", to="timm", base=base, verify=True)
    assert done.certificate is not None
    assert done.certificate.passed


def test_the_base_may_lie_beside_or_at_the_path_that_the_adapter_names(base, tmp_path) -> None:
    model = _adapted(tmp_path / "lora", IN_MEMORY, 3, base_model_name_or_path=str(base))
    _assert_computes(conversion.load(tmp_path / "lora"), model)
    other = _adapted(tmp_path / "both", ON_DISK, 3)
    _model().save_pretrained(tmp_path / "both")
    _assert_computes(conversion.load(tmp_path / "both"), other)


def test_without_a_base_the_one_that_the_adapter_names_is_asked_for(tmp_path) -> None:
    _adapted(tmp_path / "lora", IN_MEMORY, 3)
    with pytest.raises(VitportError, match=r"names as base 'google/vit.*--base hf://google/vit-base-patch16-224"):
        conversion.load(tmp_path / "lora")


def test_a_model_around_its_adapter_needs_no_base(base, tmp_path) -> None:
    model = _adapted(tmp_path / "lora", IN_MEMORY, 3)
    adapter = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    state: dict[str, torch.Tensor] = {}
    for name, tensor in _model().state_dict().items():
        module, _, leaf = name.rpartition(".")
        wrapped = f"base_model.model.{module}.base_layer.{leaf}"
        changed = wrapped.replace("base_layer.weight", "lora_A.weight").replace("base_layer.bias", "lora_A.weight")
        state[wrapped if changed in adapter else f"base_model.model.{name}"] = tensor
    for name, tensor in adapter.items():
        if "classifier" in name:
            plain = state.pop(name)
            state[name.replace("classifier.", "classifier.original_module.")] = plain
            state[name.replace("classifier.", "classifier.modules_to_save.default.")] = tensor
        else:
            state[name.replace(".weight", ".default.weight")] = tensor
    torch.save(state, tmp_path / "lora" / "whole.pth")
    facts = {"num_heads": 3, "norm_eps": 1e-12, "activation": "gelu"}
    _assert_computes(conversion.load(tmp_path / "lora" / "whole.pth", facts=facts), model)
    torch.save(state, tmp_path / "whole.pth")
    with pytest.raises(VitportError, match=r"unmerged LoRA adapter .*lora_alpha.* in no file"):
        conversion.load(tmp_path / "whole.pth", facts=facts)
    with pytest.raises(VitportError, match="leave out --base"):
        conversion.load(base, base=base)


OTHERS = {
    "DoRA": ({"use_dora": True}, "use_dora=True"),
    "IA3": ({"peft_type": "IA3"}, "peft_type='IA3'"),
    "AdaLoRA": ({"peft_type": "ADALORA"}, "peft_type='ADALORA'"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
    "QA-LoRA": ({"use_qalora": True}, "use_qalora"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha=None"),
}


@pytest.mark.parametrize("kind", list(OTHERS))
def test_an_adapter_of_another_kind_is_refused_by_what_it_is(kind, base, tmp_path) -> None:
    changes, message = OTHERS[kind]
    _adapted(tmp_path / "lora", IN_MEMORY, 3, **changes)
    with pytest.raises(VitportError, match=message):
        conversion.load(tmp_path / "lora", base=base)


@pytest.mark.parametrize("name", ["a.lora_up.weight", "a.ia3_l", "a.hada_w1_a", "a.lokr_w1", "a.vera_lambda_b"])
def test_factors_of_other_adapters_are_refused_by_name(name, tmp_path) -> None:
    state = {key: tensor.clone() for key, tensor in _model().state_dict().items()}
    torch.save(state | {name: torch.zeros(3, 4)}, tmp_path / "w.pth")
    with pytest.raises(VitportError, match=f"unmerged adapter .{name}"):
        conversion.load(tmp_path / "w.pth")


def test_a_base_of_another_model_is_refused(tmp_path) -> None:
    _adapted(tmp_path / "lora", IN_MEMORY, 3)
    config = transformers.ViTConfig(**{**CONFIG.to_dict(), "hidden_size": 12, "num_attention_heads": 3})
    transformers.ViTModel(config).save_pretrained(tmp_path / "small")
    with pytest.raises(VitportError, match="do not fit its shape"):
        conversion.load(tmp_path / "lora", base=tmp_path / "small")


KINDS: dict[str, dict[str, Any]] = {
    "head": {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]},
    "rslora": {"target_modules": "all-linear", "use_rslora": True},
    "convolution": {"target_modules": ["projection"]},
    "patterns": {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k_proj": 5}},
    "biases": {"target_modules": ["q_proj"], "bias": "all"},
    "biases of the factors": {"target_modules": ["q_proj"], "lora_bias": True},
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_pefts_own_merge_gives_the_same(kind, base, tmp_path) -> None:
    """Measured: at most 2.4e-7 apart, one or two units in the last place, of weights up to 4."""
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(_model(), peft.LoraConfig(r=4, lora_alpha=8, **KINDS[kind]))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 0, 0.3)
    model.save_pretrained(tmp_path / "lora")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    found, expected = conversion.load(tmp_path / "lora", base=base), conversion.load(tmp_path / "merged")
    for name, array in expected.params.items():
        np.testing.assert_allclose(found.params[name], array, rtol=0, atol=1e-6)
