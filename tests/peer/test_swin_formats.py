"""Swin in timm's and torchvision's formats, written here and loaded there, and read back. Oracles: timm, torchvision.

Float64; version 2's coordinates are replaced by float64 ones, because both libraries compute them in float32, except
where torchvision takes them from the file. Tolerance 1e-10 of the largest output, because both clamp version 2's scale
at a float32 value; measured 3e-15 (version 1) and 4e-14 (version 2).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("timm", reason="the peer suite needs timm and torchvision: docs/testing.md")

from safetensors.torch import load_file, save_file

import conversion
from conversion.tensors.offset_table import resize_offset_table
from tests.conversion.swin.models import BASE, checkpoint, images, outputs, relative, weights
from vit_spec import SwinConfig
from vit_spec.swin.windows import offset_coordinates, windowings

pytestmark = pytest.mark.peer
TOLERANCE = 1e-10
AXIS = BASE.replace(window_rule="axis", pad_order="roll_pad")
CONFIGS: dict[str, SwinConfig] = {
    "square": AXIS,
    "padded": AXIS.replace(image_size=(24, 40), window_sizes=5),
    "axis": AXIS.replace(image_size=(12, 40), window_sizes=6),
    "rectangles": AXIS.replace(window_sizes=((4, 8), (2, 4))),
    "per-stage": AXIS.replace(window_sizes=(4, 8)),
    "never": AXIS.replace(image_size=16, window_rule="never"),
    "v2": AXIS.replace(version=2),
    "v2-axis": AXIS.replace(version=2, image_size=(12, 40), window_sizes=6),
    "v2-pretrained": AXIS.replace(version=2, pretrained_window_sizes=(3, 2)),
    "features": AXIS.replace(num_classes=0),
}


def exact(model: Any, config: SwinConfig) -> None:
    """Version 2's coordinates in float64."""
    for name, module in model.named_modules():
        if name.endswith("attn") and hasattr(module, "cpb_mlp"):
            stage = int(name.split(".")[1])
            table = offset_coordinates(windowings(config)[stage].window, config.pretrained_window_sizes[stage])
            shape = module.relative_coords_table.shape
            module.relative_coords_table = torch.tensor(table, dtype=torch.float64).reshape(shape)


def timms(config: SwinConfig) -> Any:
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    shared = {
        "img_size": config.image_size, "patch_size": config.patch_size, "num_classes": config.num_classes,
        "embed_dim": config.embed_dim, "depths": config.depths, "num_heads": config.num_heads,
        "window_size": config.window_sizes, "mlp_ratio": config.mlp_ratio,
    }  # fmt: skip
    if config.version == 1:
        model = SwinTransformer(**shared, always_partition=config.window_rule == "never")
    else:
        sizes = [side for side, _ in config.pretrained_window_sizes]
        model = SwinTransformerV2(**shared, pretrained_window_sizes=sizes)
    return model.double().eval()


def run(model: Any, config: SwinConfig) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(images(config)).permute(0, 3, 1, 2)).numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_timm_loads_what_is_written_for_it_and_computes_the_same(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    notes = conversion.save(checkpoint(config), tmp_path / "w.safetensors", format="timm")
    assert bool(notes) == (name == "never")  # which is timm's `always_partition`
    model = timms(config)
    model.load_state_dict(load_file(tmp_path / "w.safetensors"))
    exact(model, config)
    found, expected = outputs(tmp_path / "w.safetensors", config)["head"], run(model, config)
    assert relative(found, expected) <= TOLERANCE
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "timm.safetensors")
    read = conversion.load(tmp_path / "timm.safetensors", model=config)
    assert read.config == (config.replace(window_rule="axis") if name == "never" else config)
    assert all(np.array_equal(read.params[key], value) for key, value in weights(config).items())


def torchvisions(config: SwinConfig) -> Any:
    from torchvision.models.swin_transformer import (
        PatchMerging,
        PatchMergingV2,
        SwinTransformer,
        SwinTransformerBlock,
        SwinTransformerBlockV2,
    )  # fmt: skip

    block, merging = (
        (SwinTransformerBlock, PatchMerging) if config.version == 1 else (SwinTransformerBlockV2, PatchMergingV2)
    )
    return SwinTransformer(
        patch_size=[config.patch_size] * 2, embed_dim=config.embed_dim, depths=list(config.depths),
        num_heads=list(config.num_heads), window_size=list(config.window_sizes[0]), mlp_ratio=config.mlp_ratio,
        num_classes=config.num_classes, block=block, downsample_layer=merging, stochastic_depth_prob=0.0,
    ).double().eval()  # fmt: skip


PAD = BASE.replace(window_rule="pad")
TORCHVISION: dict[str, SwinConfig] = {
    "square": PAD,
    "padded": PAD.replace(image_size=(24, 40), window_sizes=5),
    "small": PAD.replace(image_size=(12, 40), window_sizes=6),
    "rectangle": PAD.replace(window_sizes=((2, 4), (2, 4))),
    "margin": PAD.replace(image_size=(31, 45), window_sizes=5, margin_rule="drop"),
    "v2": PAD.replace(version=2),
    "v2-small": PAD.replace(version=2, image_size=(12, 40), window_sizes=6),
    "v2-pretrained": PAD.replace(version=2, pretrained_window_sizes=(3, 2)),
    "from-timm": PAD.replace(window_rule="axis", pad_order="roll_pad", version=2),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_loads_what_is_written_for_it_and_computes_the_same(name: str, tmp_path: Path) -> None:
    config = TORCHVISION[name]
    conversion.save(checkpoint(config), tmp_path / "w.pth", format="torchvision")
    model = torchvisions(config)
    model.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    found, expected = outputs(tmp_path / "w.pth", config)["head"], run(model, config)
    assert relative(found, expected) <= TOLERANCE
    torch.save(model.state_dict(), tmp_path / "torchvision.pth")
    read = conversion.load(tmp_path / "torchvision.pth")
    told = ("image_size", "window_rule", "pad_order", "margin_rule")
    sizes = {field: getattr(config, field) for field in told}
    assert read.config.replace(**sizes) == config
    assert all(np.array_equal(read.params[key], value) for key, value in weights(config).items())


@pytest.mark.parametrize(
    ("source", "target"), [((7, 7), (12, 12)), ((12, 12), (7, 7)), ((7, 7), (7, 10)), ((4, 6), (9, 3))]
)
def test_tables_are_resized_as_timm_does(source: tuple[int, int], target: tuple[int, int]) -> None:
    """timm's arithmetic is in float32: its positions reach 11, so 1e-5 is ten of their roundings."""
    from timm.layers import resize_rel_pos_bias_table

    (S, U), (T, V) = (tuple(2 * side - 1 for side in window) for window in (source, target))
    table = np.random.default_rng(0).standard_normal((S * U, 3)).astype(np.float32)
    expected = resize_rel_pos_bias_table(
        torch.tensor(table), new_window_size=target, new_bias_shape=(T * V, 3), old_window_size=source
    ).numpy()
    found = resize_offset_table(table, source=source, target=target, method="timm-geometric")
    assert np.abs(found - expected).max() <= 1e-5
