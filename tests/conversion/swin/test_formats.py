"""Every format of Swin: names, permutations, buffers and refusals. Files are run by their own names in float64.

Oracles: the names and buffers as the original codes write them, written down here or computed as they do; torch's
Unfold.
Tolerance 1e-12 of the largest output: float64 rounding, measured at most 3e-14.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import conversion
from conversion import FORMATS
from conversion.formats.swin.parts import Unfolded
from tests.conversion.swin.models import BACKBONE, BASE, checkpoint, images, outputs, relative, weights
from tests.small_configs import SWIN_CONFIGS
from vit_spec import SwinConfig, VitportError, get_model
from vit_spec.swin.windows import offset_coordinates, offset_indices

TOLERANCE = 1e-12
V2 = BASE.replace(version=2)
WRITABLE = [name for name, entry in FORMATS.items() if entry.family == "swin" and entry.can_write]
FLAVOURS: dict[str, SwinConfig] = {
    "v1": BASE,
    "v1-padded": BASE.replace(image_size=(24, 40), window_sizes=5, pad_order="pad_roll"),
    "v1-rectangular": BASE.replace(window_sizes=(4, 8), window_rule="axis", image_size=(32, 64)),
    "v1-one-rectangle": BASE.replace(window_sizes=((2, 4), (2, 4)), window_rule="pad"),
    "v2": V2,
    "v2-pretrained": V2.replace(pretrained_window_sizes=(3, 2)),
    "v2-pad": V2.replace(image_size=(12, 40), window_sizes=6, window_rule="pad"),
    "features": BASE.replace(num_classes=0),
    "backbone": BACKBONE,
    "v2-backbone": V2.replace(num_classes=0, final_norm=False),
}


def holders(config: SwinConfig) -> list[str]:
    return [name for name in WRITABLE if not FORMATS[name].cannot_hold(config)]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_format_gives_back_what_it_was_given_and_means_the_same(flavour: str, tmp_path: Path) -> None:
    config = FLAVOURS[flavour]
    expected = weights(config)
    conversion.save(checkpoint(config), tmp_path / "own", format="timm-swin")
    right = outputs(tmp_path / "own", config)
    for name in holders(config):
        conversion.save(checkpoint(config), tmp_path / name, format=name)
        found = conversion.load(tmp_path / name, model=config)
        assert found.provenance.format == name
        assert set(found.params) == set(expected)
        assert all(np.array_equal(found.params[key], value) for key, value in expected.items()), name
        again = outputs(tmp_path / name, found.config)
        assert relative(again["head"], right["head"]) <= TOLERANCE, name
        for key in ("layers.0.blocks.1", "layers.1.downsample"):
            assert relative(again[key], right[key]) <= TOLERANCE, (name, key)


def test_every_writable_format_is_tried() -> None:
    assert {name for config in FLAVOURS.values() for name in holders(config)} == set(WRITABLE)


@pytest.mark.parametrize("name", SWIN_CONFIGS)
def test_every_option_survives_the_two_formats_of_our_own(name: str, tmp_path: Path) -> None:
    config = SWIN_CONFIGS[name]
    conversion.save(checkpoint(config), tmp_path / "timm", format="timm")
    read = conversion.load(tmp_path / "timm")
    assert read.config == config
    assert outputs(tmp_path / "timm", config)["head"].shape == (2, config.num_classes or config.num_features)


def strange(
    path: Path,
    source: Path,
    rename: dict[str, str],
    wrapper: str | None = None,
    more: dict[str, torch.Tensor] | None = None,
) -> None:
    """A copy of a PyTorch file without our record, its names changed by regular expressions."""
    state = dict(torch.load(source, weights_only=True))
    for pattern, new in rename.items():
        state = {re.sub(pattern, new, name): value for name, value in state.items()}
    state |= more or {}
    torch.save({wrapper: state} if wrapper else state, path)


@pytest.mark.parametrize("version", [1, 2])
def test_buffers_of_microsofts_files_tell_windows_and_image_size(version: int, tmp_path: Path) -> None:
    config = BASE.replace(
        version=version, image_size=(32, 64), depths=(2, 2, 2), num_heads=(1, 2, 2), window_sizes=(8, 4, 4),
        pretrained_window_sizes=(6, 6, 3) if version == 2 else 0,
    )  # fmt: skip
    assert FORMATS["microsoft-swin"].cannot_hold(config)  # three windows
    config = config.replace(window_sizes=8)  # 16 x 32, 8 x 16 and 4 x 8 maps
    conversion.save(checkpoint(config), tmp_path / "ms", format="microsoft-swin")
    strange(tmp_path / "plain.pth", tmp_path / "ms", {}, "model")
    read = conversion.load(tmp_path / "plain.pth").config
    assert read.image_size == (32, 64)
    assert read.window_sizes == ((8, 8), (8, 8), (4, 4))
    assert read.pretrained_window_sizes == config.pretrained_window_sizes
    assert read.window_rule == "min"
    found, right = (outputs(tmp_path / name, each)["head"] for name, each in {"plain.pth": read, "ms": config}.items())
    assert relative(found, right) <= TOLERANCE


@pytest.mark.parametrize("prefix", ["encoder.", "module.", "backbone.", "visual_encoder.", "module.backbone.body."])
def test_prefixes_are_taken_off(prefix: str, tmp_path: Path) -> None:
    conversion.save(checkpoint(V2.replace(num_classes=0)), tmp_path / "ms", format="microsoft-swin")
    rename = {"^": prefix, "cpb_mlp": "rpe_mlp"}
    more = {f"{prefix}mask_token": torch.zeros(1, 1, 8), "decoder.0.weight": torch.zeros(3, 16, 1, 1)}
    strange(tmp_path / "w.pth", tmp_path / "ms", rename, more=more)
    read = conversion.load(tmp_path / "w.pth")
    assert read.provenance.format == "microsoft-swin"
    assert all(np.array_equal(read.params[key], value) for key, value in weights(V2.replace(num_classes=0)).items())
    right = outputs(tmp_path / "ms", V2)["head"]
    assert relative(outputs(tmp_path / "w.pth", read.config)["head"], right) <= TOLERANCE


def test_the_running_copy_of_moby_is_left(tmp_path: Path) -> None:
    conversion.save(checkpoint(BASE.replace(num_classes=0)), tmp_path / "ms", format="microsoft-swin")
    state = torch.load(tmp_path / "ms", weights_only=True)
    torch.save({f"{at}.{key}": value * factor for at, factor in (("encoder", 1), ("encoder_k", 2))
                for key, value in state.items() if value.is_floating_point() and "attn_mask" not in key},
               tmp_path / "moby.pth")  # fmt: skip
    read = conversion.load(tmp_path / "moby.pth", model=BASE)
    assert np.array_equal(read.params["norm.weight"], weights(BASE.replace(num_classes=0))["norm.weight"])


def test_a_training_checkpoint_with_a_yacs_config_is_read_without_yacs(tmp_path: Path) -> None:
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        """As yacs pickles it."""

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    options = CfgNode(MODEL=CfgNode(TYPE="swin"), AMP=True)
    options.__dict__["__immutable__"] = True
    conversion.save(checkpoint(BASE), tmp_path / "ms", format="microsoft-swin")
    state = dict(torch.load(tmp_path / "ms", weights_only=True))
    sys.modules |= {"yacs": types.ModuleType("yacs"), "yacs.config": module}
    try:
        torch.save({"model": state, "config": options, "epoch": 3, "max_accuracy": 81.3}, tmp_path / "ckpt.pth")
    finally:
        del sys.modules["yacs"], sys.modules["yacs.config"]
    assert b"yacs.config" in (tmp_path / "ckpt.pth").read_bytes()
    assert conversion.load(tmp_path / "ckpt.pth").config.depths == (2, 2)


def test_a_pickle_that_names_code_is_refused_beside_a_yacs_config(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("ran",))

    torch.save({"model": {"a.weight": torch.zeros(2)}, "config": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(VitportError, match="opening it could run code"):
        conversion.load(tmp_path / "evil.pth")
    assert pickle.dumps(io.BytesIO)  # the pickle module is there: nothing was left out by accident


def test_the_columns_of_openmmlab_are_torchs_unfold() -> None:
    maps = torch.randn(2, 3, 6, 8, dtype=torch.float64)  # (B, C, rows, columns)
    unfolded = torch.nn.Unfold(kernel_size=2, stride=2)(maps).transpose(1, 2)  # (B, positions, 4 C)
    x = maps.permute(0, 2, 3, 1)
    corners = torch.cat([x[:, r::2, c::2] for r, c in ((0, 0), (1, 0), (0, 1), (1, 1))], -1).reshape(2, 12, 12)
    assert np.array_equal(Unfolded().to_canonical([unfolded.numpy()])[0], corners.numpy())
    assert np.array_equal(Unfolded().from_canonical([corners.numpy()], BASE)[0], unfolded.numpy())


def test_openmmlabs_names_are_those_of_its_code(tmp_path: Path) -> None:
    conversion.save(checkpoint(BASE), tmp_path / "v1", format="mmpretrain")
    conversion.save(checkpoint(V2), tmp_path / "v2", format="mmpretrain")
    first, second = (set(torch.load(tmp_path / name, weights_only=True)) for name in ("v1", "v2"))
    block = "backbone.stages.0.blocks.1"
    assert {
        "backbone.patch_embed.projection.weight", "backbone.patch_embed.norm.weight", f"{block}.norm1.weight",
        f"{block}.attn.w_msa.qkv.bias", f"{block}.attn.w_msa.relative_position_bias_table",
        f"{block}.attn.w_msa.relative_position_index",
        f"{block}.ffn.layers.0.0.weight", f"{block}.ffn.layers.1.weight", "backbone.stages.0.downsample.norm.weight",
        "backbone.stages.0.downsample.reduction.weight", "backbone.norm1.weight", "head.fc.weight",
    } <= first  # fmt: skip
    assert {
        f"{block}.attn.w_msa.q_bias", f"{block}.attn.w_msa.cpb_mlp.2.weight",
        f"{block}.attn.w_msa.relative_position_index", f"{block}.attn.w_msa.relative_coords_table",
        "backbone.stages.1.downsample.reduction.weight",
    } <= second  # fmt: skip
    assert not {name for name in second if "stages.0.downsample" in name}
    for name, config in {"v1": BASE, "v2": V2}.items():
        state = dict(torch.load(tmp_path / name, weights_only=True))
        torch.save({"state_dict": state, "meta": {}}, tmp_path / "plain.pth")
        read = conversion.load(tmp_path / "plain.pth", facts={"image_size": 32}).config
        assert (read.window_rule, read.window_sizes) == ("min", config.window_sizes)


def test_what_stands_on_the_backbone_of_a_detector_is_set_aside(tmp_path: Path) -> None:
    """The parts of mmdetection's and mmsegmentation's models beside ``backbone.``."""
    conversion.save(checkpoint(BACKBONE), tmp_path / "mm", format="mmpretrain")
    parts = ("neck.lateral_convs.0.conv", "rpn_head.rpn_cls", "roi_head.bbox_head.0.fc_cls", "decode_head.conv_seg",
             "auxiliary_head.conv_seg")  # fmt: skip
    more = {f"{part}.weight": torch.ones(3, 4) for part in parts}
    strange(tmp_path / "detector.pth", tmp_path / "mm", {}, "state_dict", more)
    read = conversion.load(tmp_path / "detector.pth", facts={"image_size": (24, 40)})
    assert read.config == BACKBONE.replace(pad_order="pad_roll")
    assert sum("a detector or segmenter computes" in note for note in read.provenance.notes) == 5


@pytest.mark.parametrize("layout", ["map", "table"])
def test_a_detectors_position_table_is_read_as_a_map_too(layout: str, tmp_path: Path) -> None:
    config = BACKBONE.replace(absolute_pos_embed=True)
    conversion.save(checkpoint(config), tmp_path / "ms", format="microsoft-swin-detection")
    state = dict(torch.load(tmp_path / "ms", weights_only=True))
    assert state["absolute_pos_embed"].shape == (1, 8, 12, 20)
    if layout == "table":
        state["absolute_pos_embed"] = state["absolute_pos_embed"].flatten(2).transpose(1, 2)
    torch.save({f"backbone.{name}": value for name, value in state.items()}, tmp_path / "det.pth")
    read = conversion.load(tmp_path / "det.pth", model=config)
    assert read.config.window_rule == "never"
    assert np.array_equal(read.params["absolute_pos_embed"], weights(config)["absolute_pos_embed"])
    assert np.array_equal(read.params["norm.weight"], weights(config)["norm.weight"])


def test_a_key_bias_of_torchvision_is_left_out_and_told(tmp_path: Path) -> None:
    conversion.save(checkpoint(V2), tmp_path / "tv", format="torchvision")
    state = dict(torch.load(tmp_path / "tv", weights_only=True))
    state["features.1.0.attn.qkv.bias"][8:16] = 7.0
    torch.save(state, tmp_path / "strange.pth")
    read = conversion.load(tmp_path / "strange.pth")
    assert any("bias of keys in features.1.0.attn.qkv.bias" in note for note in read.provenance.notes)
    found = outputs(tmp_path / "strange.pth", read.config.replace(image_size=32))["head"]
    assert relative(found, outputs(tmp_path / "tv", V2)["head"]) <= TOLERANCE


def test_torchvisions_coordinates_state_the_pretraining_window(tmp_path: Path) -> None:
    config = V2.replace(pretrained_window_sizes=(3, 2), window_rule="pad")
    conversion.save(checkpoint(config), tmp_path / "tv", format="torchvision")
    state = dict(torch.load(tmp_path / "tv", weights_only=True))
    expected = np.array(offset_coordinates((4, 4), (3, 3))).reshape(1, 7, 7, 2)
    assert np.array_equal(state["features.1.0.attn.relative_coords_table"].numpy(), expected)
    assert np.array_equal(
        state["features.1.0.attn.relative_position_index"].numpy(), np.reshape(offset_indices((4, 4)), -1)
    )
    torch.save(state, tmp_path / "plain.pth")
    assert conversion.load(tmp_path / "plain.pth").config.pretrained_window_sizes == ((3, 3), (2, 2))
    state["features.1.0.attn.relative_coords_table"] *= 1.2
    torch.save(state, tmp_path / "scaled.pth")
    with pytest.raises(VitportError, match="that fit no pretraining window"):
        conversion.load(tmp_path / "scaled.pth")


def test_another_index_is_refused(tmp_path: Path) -> None:
    conversion.save(checkpoint(BASE), tmp_path / "ms", format="microsoft-swin")
    state = dict(torch.load(tmp_path / "ms", weights_only=True))
    name = "layers.0.blocks.0.attn.relative_position_index"
    state[name] = state[name].T.contiguous()  # key minus query
    torch.save(state, tmp_path / "strange.pth")
    with pytest.raises(VitportError, match="that fits no window: another order of offsets"):
        conversion.load(tmp_path / "strange.pth")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("torchvision", {"window_sizes": (4, 8), "image_size": (32, 64)}, "one window, which never shrinks"),
        ("torchvision", {"image_size": 12, "window_sizes": 4}, "windows of 4x4, 3x3 at 12x12 pixels"),
        ("torchvision", {"version": 2, "image_size": 12}, "windows of 4x4, 3x3"),
        ("torchvision", {"activation": "relu"}, "activation='relu'"),
        ("torchvision", {"norm_eps": 1e-6}, "norm_eps=1e-06"),
        ("microsoft-swin", {"image_size": 24, "window_sizes": 5}, "windows do not divide the 12x12 map"),
        ("microsoft-swin", {"window_sizes": (4, 8), "image_size": (32, 64)}, "one square window"),
        ("mmpretrain", {"image_size": 12}, "no map may be smaller"),
        ("microsoft-swin-detection", {}, "num_classes=5"),
        ("huggingface-vit", {}, "holds no models of the family swin"),
    ],
)
def test_what_a_format_cannot_state_is_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = BASE.replace(**{"window_rule": "axis"} | changes)
    with pytest.raises(VitportError, match=message):
        conversion.save(checkpoint(config), tmp_path / "w", format=name)
    assert not list(tmp_path.iterdir())


def test_timm_reads_other_functions_otherwise_and_is_told(tmp_path: Path) -> None:
    notes = conversion.save(checkpoint(FLAVOURS["v1-padded"]), tmp_path / "a", format="timm")
    assert any("timm itself computes another function" in note for note in notes)
    assert not conversion.save(checkpoint(BASE), tmp_path / "b", format="timm")


def registered(name: str) -> SwinConfig:
    config = get_model(name).config
    assert isinstance(config, SwinConfig)
    return config


def plain(config: SwinConfig, path: Path) -> None:
    """A safetensors file of canonical names alone, as timm writes it."""
    from safetensors.numpy import save_file

    save_file(weights(config, dtype=np.float32), path)


def test_what_nobody_tells_is_asked_for_with_the_candidates(tmp_path: Path) -> None:
    config = registered("swinv2_tiny_window8_256").replace(num_classes=3)
    plain(config, tmp_path / "w.safetensors")
    with pytest.raises(
        VitportError, match="does not say its window_sizes, pretrained_window_sizes, image_size"
    ) as error:
        conversion.load(tmp_path / "w.safetensors")
    assert "swinv2_tiny_window8_256, swinv2_tiny_window16_256" in str(error.value)
    read = conversion.load(tmp_path / "w.safetensors", model="swinv2_tiny_window16_256").config
    assert read == get_model("swinv2_tiny_window16_256").config.replace(num_classes=3)
    with pytest.raises(VitportError, match=r"swinv2_small_window8_256 has depths=\(2, 2, 18, 2\)"):
        conversion.load(tmp_path / "w.safetensors", model="swinv2_small_window8_256")
    with pytest.raises(VitportError, match="of the family vit"):
        conversion.load(tmp_path / "w.safetensors", model="vit_tiny_patch16_224")


def test_windows_that_are_not_the_names_are_refused(tmp_path: Path) -> None:
    config = registered("swin_tiny_patch4_window7_224")
    plain(config.replace(num_classes=3, window_sizes=4), tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match="has windows of 7x7, 7x7, 7x7, 7x7, but those of the file are 4x4"):
        conversion.load(tmp_path / "w.safetensors", model="swin_tiny_patch4_window7_224")


def test_features_only_and_swinv2_cr(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    config = BASE.replace(num_classes=0, final_norm=False, window_rule="axis", pad_order="roll_pad")
    arrays = {re.sub(r"^layers\.", "layers_", name): value for name, value in weights(config).items()}
    save_file(arrays, tmp_path / "features.safetensors")
    assert conversion.load(tmp_path / "features.safetensors", model=config).config == config
    head = {"stages.0.blocks.0.attn.meta_mlp.fc1.weight": np.zeros((384, 2)), "stages.0.blocks.0.attn.qkv.weight":
            np.zeros((9, 3))}  # fmt: skip
    save_file(head, tmp_path / "cr.safetensors")
    with pytest.raises(VitportError, match="SwinV2-CR"):
        conversion.load(tmp_path / "cr.safetensors")


@pytest.mark.parametrize("window", [(2, 14), (4, 8)])
def test_a_window_whose_table_looks_square_is_the_configs(window: tuple[int, int], tmp_path: Path) -> None:
    config = BASE.replace(window_sizes=(window, window), window_rule="pad", image_size=(32, 64))
    plain(config, tmp_path / "w.safetensors")
    assert conversion.load(tmp_path / "w.safetensors", model=config).config.window_sizes == (window, window)


def test_another_window_keeps_what_version_2_means_and_resizes_version_1s_tables() -> None:
    first = conversion.with_sizes(checkpoint(BASE), image_size=48, window_size=6)
    assert first.params["layers.0.blocks.0.attn.relative_position_bias_table"].shape == (121, 2)
    assert "resized by timm-geometric" in first.provenance.notes[-1]
    second = conversion.with_sizes(checkpoint(V2), window_size=8)
    assert second.config.pretrained_window_sizes == ((4, 4), (4, 4))
    assert conversion.with_sizes(second, window_size=4).config == V2
    shrunk = conversion.with_sizes(checkpoint(BASE.replace(window_rule="axis")), image_size=(12, 32))
    assert shrunk.params["layers.1.blocks.0.attn.relative_position_bias_table"].shape == (5 * 7, 4)
    with pytest.raises(VitportError, match="window_size=7 is for Swin"):
        conversion.with_sizes(
            conversion.Checkpoint.of(get_model("vit_tiny_patch16_224").config, {}), window_size=7
        )  # fmt: skip
    assert images(BASE).shape == (2, 32, 32, 3)


def folder(path: Path, config: SwinConfig, told: dict[str, Any]) -> Path:
    """timm's folder on the Hub."""
    path.mkdir()
    plain(config, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(told))
    return path


def test_timms_folder_names_the_architecture_and_its_arguments(tmp_path: Path) -> None:
    config = registered("swinv2_tiny_window16_256").replace(num_classes=3, image_size=(128, 192))
    told = {
        "architecture": "swinv2_tiny_window16_256", "num_classes": 3, "num_features": 768, "global_pool": "avg",
        "pretrained_cfg": {"tag": "ms_in1k", "input_size": [3, 256, 256], "crop_pct": 0.9, "pool_size": [8, 8]},
        "model_args": {
            "img_size": [128, 192], "window_size": [16, 8, [4, 6], 4], "pretrained_window_sizes": [8, 8, 8, 4],
        },
    }  # fmt: skip
    read = conversion.load(folder(tmp_path / "timm", config, told)).config
    assert read == config.replace(
        window_sizes=(16, 8, (4, 6), 4), pretrained_window_sizes=(8, 8, 8, 4), window_rule="axis"
    )
    told["model_args"] = {"always_partition": True}
    assert conversion.load(folder(tmp_path / "never", config, told)).config.window_rule == "never"
    told["model_args"] = {"embed_layer": "something"}
    with pytest.raises(VitportError, match="embed_layer='something'"):
        conversion.load(folder(tmp_path / "bad", config, told))
