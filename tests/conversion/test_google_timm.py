"""Google's formats as timm reads them. Oracle: timm's own npz loader, for released names and big_vision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import conversion
import vit_torch
from tests.random_weights import random_images, random_params
from vit_spec import ViTConfig

CONFIG = ViTConfig(
    image_size=(16, 16), patch_size=4, embed_dim=24, depth=11, num_heads=3, mlp_hidden_dim=48, num_classes=7,
    activation="gelu_tanh",
)  # fmt: skip


@pytest.mark.peer
@pytest.mark.parametrize(
    ("format_name", "changes"),
    [
        ("google", {}),
        ("big-vision", {"class_token": False, "pool": "avg", "pos_embed": "patch"}),
        ("big-vision", {"class_token": False, "pool": "map", "pos_embed": "patch"}),
    ],
    ids=["google", "big-vision, average", "big-vision, attention pool"],
)
def test_timm_reads_what_we_write(tmp_path, format_name, changes) -> None:
    from timm.models.vision_transformer import VisionTransformer

    config = CONFIG.replace(**changes)
    params = random_params(config, seed=1, dtype=np.float32)
    conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "w.npz", format=format_name)
    model = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=11, num_heads=3, mlp_ratio=2, num_classes=7,
        act_layer="gelu_tanh", global_pool=config.pool, class_token=config.class_token, fc_norm=False,
        no_embed_class=config.pos_embed == "patch",
    ).eval()  # fmt: skip
    model.load_pretrained(str(tmp_path / "w.npz"))
    loaded = model.state_dict()
    assert set(loaded) == set(params)
    assert all((loaded[name].numpy() == params[name]).all() for name in params)
    images = torch.tensor(random_images(config, 2, seed=2), dtype=torch.float32)
    with torch.no_grad():
        expected, actual = model(images), vit_torch.create_model(weights=tmp_path / "w.npz").eval()(images)
    # Float32 rounds to 6e-8; 11 blocks of some 10 roundings give 1e-6. Measured: 6e-7.
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
