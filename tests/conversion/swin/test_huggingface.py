"""Hugging Face's Swin and Swin v2, there and back. Oracle: transformers' own classes in float64.

Version 1 runs with scaled dot-product attention, because transformers' eager one casts its softmax to float32. Version
2's coordinates are replaced by float64 ones, for the same reason. The tolerance of 1e-12 of the largest value is for
float64; measured at most 2e-15 (version 1) and 2e-14 (version 2).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import conversion
from tests.conversion.swin.models import BACKBONE, BASE, checkpoint, images, outputs, relative, weights
from vit_spec import SwinConfig, VitportError
from vit_spec.swin.windows import offset_coordinates

TOLERANCE = 1e-12
V2 = BASE.replace(version=2)
MODELS: dict[str, tuple[str, SwinConfig]] = {
    "classifier": ("SwinForImageClassification", BASE),
    "padded": ("SwinForImageClassification", BASE.replace(image_size=(24, 40), window_sizes=5)),
    "margin": ("SwinForImageClassification", BASE.replace(image_size=(31, 45), window_sizes=5)),
    "map-is-window": ("SwinForImageClassification", BASE.replace(image_size=16)),
    "positions": ("SwinForImageClassification", BASE.replace(absolute_pos_embed=True, qkv_bias=False)),
    "features": ("SwinModel", BASE.replace(num_classes=0, activation="gelu_tanh", norm_eps=1e-3)),
    "backbone": ("SwinBackbone", BACKBONE),
    "backbone-last": ("SwinBackbone", BACKBONE.replace(stage_norms=(), image_size=16, window_sizes=4)),
    "v2": ("Swinv2ForImageClassification", V2),
    "v2-padded": ("Swinv2ForImageClassification", V2.replace(image_size=(24, 40), window_sizes=5)),
    "v2-margin": ("Swinv2ForImageClassification", V2.replace(image_size=(31, 45), window_sizes=5)),
    "v2-clamped": ("Swinv2ForImageClassification", V2.replace(image_size=(12, 40), window_sizes=6)),
    "v2-pretrained": ("Swinv2ForImageClassification", V2.replace(pretrained_window_sizes=(3, 2))),
    "v2-features": ("Swinv2Model", V2.replace(num_classes=0, qkv_bias=False)),
    "v2-backbone": ("Swinv2Backbone", V2.replace(num_classes=0, final_norm=False)),
}


def load(kind: str, path: Path) -> tuple[Any, dict[str, Any]]:
    """The class's model in float64, and what its loader says about names."""
    options = {} if kind.startswith("Swinv2") else {"attn_implementation": "sdpa"}
    model, told = getattr(transformers, kind).from_pretrained(
        path, output_loading_info=True, dtype=torch.float64, **options
    )
    for module in model.modules():
        if hasattr(module, "continuous_position_bias_mlp"):
            window, pretrained = module.window_size, tuple(module.pretrained_window_size)
            table = torch.tensor(offset_coordinates(tuple(map(int, window)), pretrained), dtype=torch.float64)
            module.relative_coords_table = table.reshape(module.relative_coords_table.shape)
    return model.eval(), told


def run(model: Any, config: SwinConfig) -> list[np.ndarray]:
    """Logits, or the pooled features, or the maps of a backbone."""
    with torch.no_grad():
        found = model(torch.tensor(images(config)).permute(0, 3, 1, 2))
    if hasattr(found, "feature_maps"):
        return [each.flatten(2).transpose(1, 2).numpy() for each in found.feature_maps]
    return [(found.logits if hasattr(found, "logits") else found.pooler_output).numpy()]


def ours(found: dict[str, np.ndarray], config: SwinConfig, model: Any) -> list[np.ndarray]:
    """The same of a file by its own names."""
    if "Backbone" not in type(model).__name__:
        return [found["head"]]
    if config.version == 2:
        return [found["layers.1.blocks.1"]]
    return [found[name] for name in (*(f"stage_norms.{stage}" for stage in config.stage_norms), "norm")]


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_every_tensor_and_computes_the_same(name: str, tmp_path: Path) -> None:
    kind, config = MODELS[name]
    conversion.save(checkpoint(config), tmp_path / "hf", format="huggingface")
    model, told = load(kind, tmp_path / "hf")
    ignored = {"swin.layernorm.weight", "swin.layernorm.bias"}  # of a backbone, which has and never runs it
    assert {key for keys in told.values() for key in keys} <= ignored
    back = conversion.load(tmp_path / "hf")
    expected = weights(config)
    assert set(back.params) == set(expected)
    assert all(np.array_equal(back.params[key], expected[key]) for key in expected)
    for found, right in zip(ours(outputs(tmp_path / "hf", config), config, model), run(model, config), strict=True):
        assert relative(found, right) <= TOLERANCE
    # By canonical names, with the config as it was and as it was read back.
    for at, each in enumerate((config, back.config)):
        conversion.save(conversion.Checkpoint.of(each, expected), tmp_path / f"{at}", format="timm")
        found = ours(outputs(tmp_path / f"{at}", each), each, model)
        for one, right in zip(found, run(model, config), strict=True):
            assert relative(one, right) <= TOLERANCE


@pytest.mark.parametrize("name", ["classifier", "features", "backbone", "v2", "v2-backbone"])
def test_what_transformers_saves_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    kind, config = MODELS[name]
    conversion.save(checkpoint(config, dtype=np.float32), tmp_path / "hf", format="huggingface")
    model = getattr(transformers, kind).from_pretrained(tmp_path / "hf")
    model.save_pretrained(tmp_path / "saved")
    read = conversion.load(tmp_path / "saved")
    conversion.save(read, tmp_path / "again", format="huggingface")
    again, told = getattr(transformers, kind).from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not {key for keys in told.values() for key in keys} - {"swin.layernorm.weight", "swin.layernorm.bias"}
    for key, value in model.state_dict().items():
        if not key.startswith("swin.layernorm.") or name != "backbone":
            assert torch.equal(again.state_dict()[key], value), key


def test_automodel_finds_the_class(tmp_path: Path) -> None:
    for name, auto in (
        ("features", transformers.AutoModel),
        ("v2-features", transformers.AutoModel),
        ("v2", transformers.AutoModelForImageClassification),
    ):
        kind, config = MODELS[name]
        conversion.save(checkpoint(config), tmp_path / name, format="huggingface")
        assert type(auto.from_pretrained(str(tmp_path / name))).__name__ == kind


def test_names_in_memory_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    _, config = MODELS["classifier"]
    conversion.save(checkpoint(config), tmp_path / "hf", format="huggingface")
    model, _ = load("SwinForImageClassification", tmp_path / "hf")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "config.json").write_text((tmp_path / "hf" / "config.json").read_text())
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    assert any(".attention.q_proj." in name for name in state)
    save_file(state, tmp_path / "memory" / "model.safetensors")
    found = conversion.load(tmp_path / "memory").params
    assert all(np.array_equal(found[name], value) for name, value in weights(config).items())
    assert relative(outputs(tmp_path / "memory", config)["head"], run(model, config)[0]) <= TOLERANCE


@pytest.mark.parametrize("version", ["Swin", "Swinv2"])
def test_the_encoder_of_masked_image_modelling_is_read(version: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind, make = (getattr(transformers, f"{version}{what}") for what in ("ForMaskedImageModeling", "Config"))
    sizes = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
    model = kind(make(**sizes, encoder_stride=4)).eval()
    model.save_pretrained(tmp_path / "hf")
    found = conversion.load(tmp_path / "hf")
    assert (found.config.num_classes, found.config.final_norm) == (0, True)
    assert any("mask_token" in note for note in found.provenance.notes)
    inner = model.swin if version == "Swin" else model.swinv2
    qkv = found.params["layers.0.blocks.1.attn.qkv.weight"]
    parts = [value for name, value in inner.state_dict().items()
             if name.startswith("encoder.layers.0.blocks.1.attention.") and value.shape == (8, 8)]  # fmt: skip
    assert np.array_equal(qkv, torch.cat(parts[:3]).numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_sizes": (4, 8), "window_rule": "axis"}, "windows of 4x4, 8x8 at 32x32 pixels"),
        ({"window_sizes": ((2, 4), (2, 4)), "window_rule": "axis"}, "windows of 2x4, 2x4"),
        ({"window_sizes": 5, "pad_order": "roll_pad"}, "pad_order='roll_pad'"),
        ({"image_size": (16, 32), "window_rule": "axis", "window_sizes": 5}, "window_rule='axis'"),
        ({"patch_norm": False}, "patch_norm=False"),
        ({"patch_norm_eps": 1e-6}, "patch_norm_eps=1e-06"),
        ({"stage_norms": (0,)}, r"stage_norms=\(0,\)"),
        ({"version": 2, "image_size": 22, "window_sizes": 6}, "windows of 6x6, 6x6 at 22x22 pixels"),  # theirs is 5
        ({"margin_rule": "drop", "image_size": (33, 44)}, "margin_rule='drop'"),
        ({"version": 2, "absolute_pos_embed": True}, "absolute_pos_embed=True"),
        ({"version": 2, "pretrained_window_sizes": ((2, 3), (2, 3))}, "pretrained_window_sizes"),
    ],
)
def test_what_one_window_does_not_state_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(VitportError, match=message):
        conversion.save(checkpoint(BASE.replace(**changes)), tmp_path / "hf", format="huggingface")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("changes", [
    {"window_rule": "axis", "pad_order": "roll_pad"},
    {"window_rule": "axis", "pad_order": "roll_pad", "version": 2, "window_sizes": (8, 8)},
    {"window_rule": "axis", "version": 2, "window_sizes": (16, 8), "pretrained_window_sizes": (12, 6)},
])  # fmt: skip
def test_another_rule_that_comes_to_the_same_is_written(changes: dict[str, Any], tmp_path: Path) -> None:
    config = BASE.replace(**changes)
    conversion.save(checkpoint(config), tmp_path / "hf", format="huggingface")
    conversion.save(checkpoint(config), tmp_path / "own", format="timm")
    found, right = (outputs(tmp_path / name, config)["head"] for name in ("hf", "own"))
    assert relative(found, right) <= TOLERANCE


def test_a_size_at_which_transformers_cannot_run_is_refused(tmp_path: Path) -> None:
    conversion.save(checkpoint(BASE), tmp_path / "hf", format="huggingface")
    told = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(told | {"image_size": 12}))
    with pytest.raises(VitportError, match="3x3 map of stage 1 is smaller than window_size=4"):
        conversion.load(tmp_path / "hf")


def test_a_mask_that_is_added_twice_is_told(tmp_path: Path) -> None:
    params = weights(V2)
    params["layers.0.blocks.1.attn.logit_scale"][0] = 4.6
    notes = conversion.save(conversion.Checkpoint.of(V2, params), tmp_path / "hf", format="huggingface")
    assert any("-200" in note for note in notes)
    assert any("-200" in note for note in conversion.load(tmp_path / "hf").provenance.notes)
    assert not any("-200" in note for note in conversion.save(checkpoint(V2), tmp_path / "ok", format="huggingface"))
