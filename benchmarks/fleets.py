"""The models, batches and numbers of chips of docs/reports/scaling.md."""

from __future__ import annotations

from vit_jax.training.devices.chips import CHIPS, H100, V5E, V6E, Chip
from vit_spec import Config, ViTConfig, get_model

VIT_22B = ViTConfig(
    patch_size=14, embed_dim=6144, depth=48, num_heads=48, mlp_hidden_dim=24576, block="parallel", qk_norm=True,
    qkv_bias=False, norm_bias=False, class_token=False, pool="map", pos_embed="patch",
)  # fmt: skip
"""Dehghani et al. 2023, table 1 and section 2, with a head for ImageNet-1k."""
NAMES = {
    "ViT-B/16": "vit_base_patch16_224",
    "ViT-L/16": "vit_large_patch16_224",
    "ViT-H/14": "vit_huge_patch14_224",
    "ViT-g/14": "vit_giant_patch14_224",
    "ViT-22B/14": "vit_22b_patch14_224",
}
"""The last is no registered model: nobody has its weights."""
MODELS: dict[str, tuple[Config, int]] = {
    title: (VIT_22B, 65536) if title == "ViT-22B/14" else (get_model(name).config, 4096)
    for title, name in NAMES.items()
}
"""With the batches of Dosovitskiy et al. 2021, Zhai et al. 2022 and Dehghani et al. 2023."""
SIZES = (8, 64, 256, 1024, 4096)
KINDS = (V5E, V6E, H100)
SLICES = {"v5e": {8: "2x4", 64: "8x8", 256: "16x16"}, "h100": {8: "1x8", 64: "8x8", 256: "32x8"}}
SLICES["v6e"] = SLICES["v5e"]
"""How so many chips lie where steps are compiled for them: as squares, and in nodes of eight."""


def fleets() -> list[tuple[int, Chip]]:
    """Numbers of chips, by chip."""
    return [(devices, chip) for chip in KINDS for devices in SIZES]


def compiled_fleets() -> list[tuple[int, Chip, str]]:
    """Those for which steps are compiled too, with the names of their topologies."""
    return [
        (devices, CHIPS[kind], f"{kind}:{shape}")
        for kind, shapes in SLICES.items()
        for devices, shape in shapes.items()
    ]


def config_of(name: str) -> Config:
    """Of a model by its name in :data:`NAMES`, or any registered one."""
    return VIT_22B if name == NAMES["ViT-22B/14"] else get_model(name).config
