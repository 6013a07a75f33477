"""Folders that vitport writes of transformers' models are the same models to transformers: base and head variants.

Oracle: transformers' classes, which load the folders with no key missing and none unexpected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import conversion
from tests.cross.transformers_folders import as_rows, check_both_spellings, distances, randomize

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 4}
WIDE = SIZES | {"intermediate_size": 40}
GATED = SIZES | {"use_swiglu_ffn": True, "num_register_tokens": 2}
NOT_SQUARE, SQUARE = (12, 20), (12, 12)
VARIANTS: dict[str, tuple[str, str, tuple[int, int], dict[str, Any]]] = {
    "I-JEPA": ("IJepaModel", "huggingface-vit", NOT_SQUARE, WIDE),
    "I-JEPA's classifier": ("IJepaForImageClassification", "huggingface-vit", NOT_SQUARE, WIDE | {"num_labels": 5}),
    "gated DINOv2 with registers": ("Dinov2WithRegistersModel", "huggingface-dinov2", SQUARE, GATED),
    "its classifier": ("Dinov2WithRegistersForImageClassification", "huggingface-dinov2", SQUARE, GATED),
    "SigLIP 2": ("Siglip2VisionModel", "huggingface-siglip2", SQUARE, WIDE),
}


def model(name: str) -> torch.nn.Module:
    kind, _, (height, width), options = VARIANTS[name]
    cls = getattr(transformers, kind)
    size = {"num_patches": height * width // 16} if "Siglip2" in kind else {"image_size": (height, width)}
    if height == width and "image_size" in size:
        size = {"image_size": height}
    return randomize(cls(cls.config_class(**options, **size)))


@pytest.mark.parametrize("name", VARIANTS)
def test_tokens_and_answers_agree(name: str, tmp_path: Path) -> None:
    """In float64, both frameworks; measured 2e-15."""
    found = distances(model(name), tmp_path, VARIANTS[name][2])
    assert {what.split()[0] for what in found} == {"torch", "jax"}
    assert max(found.values()) < 1e-13, found


@pytest.mark.parametrize("name", VARIANTS)
def test_a_folder_that_is_written_is_the_same_model(name: str, tmp_path: Path) -> None:
    """In float32, between two loads of one class: nothing is rounded."""
    theirs, (_, form, (height, width), _) = model(name), VARIANTS[name]
    theirs.save_pretrained(tmp_path / "a")
    conversion.save(conversion.load(tmp_path / "a"), tmp_path / "b", format=form)
    again, info = type(theirs).from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(info.values()), info
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    inputs = as_rows(pixels, 4) if "SigLIP 2" in name else {"pixel_values": pixels}
    with torch.no_grad():
        expected, found = (it(**inputs) for it in (theirs, again.eval()))
    for what in ("last_hidden_state", "logits", "pooler_output"):
        if expected.get(what) is not None:
            assert torch.equal(found[what], expected[what]), what


@pytest.mark.parametrize("name", VARIANTS)
def test_names_on_disk_and_names_in_memory_are_read(name: str, tmp_path: Path) -> None:
    check_both_spellings(model(name), tmp_path)


def test_the_processor_of_siglip_2_gives_the_grid_of_its_table(tmp_path: Path) -> None:
    """Oracle: transformers' own processor, which loads what is written, on a square image."""
    model("SigLIP 2").save_pretrained(tmp_path / "a")
    conversion.save(conversion.load(tmp_path / "a"), tmp_path / "b", format="huggingface-siglip2")
    again = conversion.load(tmp_path / "b")
    assert again.preprocessing.size == (12, 12)
    assert again.preprocessing.resize == "squash"
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "b")
    made = processor(torch.randint(0, 256, (3, 30, 30), dtype=torch.uint8), return_tensors="pt")
    assert made["spatial_shapes"].tolist() == [[3, 3]]
    assert made["pixel_values"].shape == (1, 9, 48)
