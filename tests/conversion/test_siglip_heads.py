"""SigLIP without pooling, and SigLIP 2's images of any shape; DINOv3's biases on some layers. Oracle: transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file

import conversion
import vit_torch
import vitport
from tests.cross.transformers_folders import randomize
from vit_spec import VitportError

SIZES: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 4, "intermediate_size": 41,
}  # fmt: skip


def folder(tmp_path: Path, **changes: Any) -> tuple[Path, Any]:
    model: Any = randomize(t.SiglipVisionModel(t.SiglipVisionConfig(**SIZES, image_size=16, **changes))).eval()
    model.save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip", model


def test_siglip_without_pooling_gives_the_mean_of_its_patches(tmp_path: Path) -> None:
    """On images that are not square, for which either side resizes the table of positions. In float32; measured 2.2e-7
    of the largest value."""
    path, theirs = folder(tmp_path, vision_use_head=False)
    checkpoint = conversion.load(path)
    assert (checkpoint.config.pool, checkpoint.config.final_norm) == ("avg", "tokens")
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    resized = conversion.prepare(None, weights=checkpoint, image_size=(16, 24))
    with torch.no_grad():
        expected = theirs(images, interpolate_pos_encoding=True).last_hidden_state
        found = vit_torch.create_model(weights=resized).eval().forward_features(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * float(expected.abs().max()))
    done = vitport.convert(path, tmp_path / "flax", to="flax", verify=True)
    assert done.certificate is not None
    assert done.certificate.passed


def test_siglip_that_lost_its_pooling_is_refused(tmp_path: Path) -> None:
    path, _ = folder(tmp_path)
    weights = {name: it for name, it in load_file(path / "model.safetensors").items() if ".head." not in name}
    weights = {name: it for name, it in weights.items() if not name.startswith("head.")}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VitportError, match=r"no head\.probe, with which SigLIP pools"):
        conversion.load(path)


def test_siglip2_says_what_becomes_of_images_that_are_not_square(tmp_path: Path) -> None:
    t.Siglip2VisionModel(t.Siglip2VisionConfig(**SIZES, num_patches=16)).save_pretrained(tmp_path / "second")
    assert any(
        "only square images get the same answers" in it for it in conversion.load(tmp_path / "second").provenance.notes
    )
    path, _ = folder(tmp_path)
    assert not any("only square images" in it for it in conversion.load(path).provenance.notes)


@pytest.mark.parametrize(
    "biases",
    [{"query_bias": False}, {"value_bias": False}, {"mlp_bias": False}, {"query_bias": False, "key_bias": True}],
)
def test_dinov3_with_biases_on_some_layers_is_refused_by_what_config_json_says(
    biases: dict[str, Any], tmp_path: Path
) -> None:
    config = t.DINOv3ViTConfig(**SIZES, image_size=16, num_register_tokens=1, **biases)
    t.DINOv3ViTModel(config).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["mlp_bias"] is config.mlp_bias
    with pytest.raises(VitportError, match=f"config.json has .*{next(iter(biases))}={next(iter(biases.values()))}"):
        conversion.load(tmp_path)
