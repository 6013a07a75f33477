"""``vitport models`` against published numbers."""

from __future__ import annotations

import json
import re

import pytest


@pytest.mark.parametrize(
    ("name", "parameters", "gflops"),
    [
        ("vit_base_patch16_224", 86_567_656, 35.13),  # timm's table: 86.57 M, 17.58 GMACs with everything counted
        ("deit_small_patch16_224", 22_050_664, 9.20),  # Touvron et al. 2021, table 5: 22 M; its code's table: 4.6 GMACs
        ("vit_small_patch14_dinov2", 22_056_576 - 384, 93.39),  # Meta's file, less its mask token; timm: 46.76 GMACs
    ],
)
def test_sizes_are_the_published_ones(name, parameters, gflops, vitport):
    """Parameters exactly, in JSON; millions and GFLOPs, rounded, in the table."""
    result = vitport("models", name, "--json")
    (model,) = [model for model in json.loads(result.out) if model["name"] == name]
    assert model["parameters"] == parameters
    assert model["flops"] / 1e9 == pytest.approx(gflops, abs=0.005)
    row = re.search(rf"^{name} .*$", vitport("models", name).out, re.MULTILINE)
    assert row is not None
    assert row[0].split()[1:] == [
        "x".join(map(str, model["image_size"])),
        str(model["patch_size"]),
        f"{parameters / 1e6:.2f}",
        f"{gflops:.2f}",
    ]


def test_units_stand_in_the_header(vitport):
    """A multiply-add can count as one or two; the reader is told."""
    header = vitport("models").out.splitlines()[0]
    assert "parameters (M)" in header
    assert "GFLOPs (2 per multiply-add)" in header


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("base_patch14_reg4", ["vit_base_patch14_reg4_dinov2"]),
        ("deit_*_384", ["deit_base_distilled_patch16_384", "deit_base_patch16_384"]),
        ("vit_large_patch1[46]_224", ["vit_large_patch14_224", "vit_large_patch16_224"]),
    ],
)
def test_pattern_chooses_by_part_or_wildcard(pattern, expected, vitport):
    """Chosen by eye among the families and sizes."""
    names = [model["name"] for model in json.loads(vitport("models", pattern, "--json").out)]
    assert sorted(names) == expected


def test_no_match_is_told(vitport):
    """Exit 2 and the way on."""
    result = vitport("models", "resnet")
    assert result.code == 2
    assert result.err == "vitport: No model's name matches 'resnet': `vitport models` lists them all.\n"
