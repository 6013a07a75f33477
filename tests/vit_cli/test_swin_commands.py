"""The commands that measure, on Swin Transformers: the carried one, and one of version 2 with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conversion
import vit_cli
from tests.conversion.swin.models import BASE, checkpoint
from vit_parity.points import activation_names

CARRIED = Path(vit_cli.__file__).parent / "assets" / "digits_swin.safetensors"
BOTH = [1, pytest.param(2, marks=pytest.mark.slow)]


@pytest.fixture
def swin(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Weights of a version."""
    if request.param == 1:
        return CARRIED
    conversion.save(
        checkpoint(BASE.replace(version=2), dtype=np.float32), tmp_path / "swin2.safetensors", format="timm"
    )
    return tmp_path / "swin2.safetensors"


@pytest.mark.parametrize("swin", BOTH, indirect=True)
def test_compare_captures_every_activation_and_reports_it(swin: Path, vitport: Callable[..., Any], tmp_path: Path):
    report = tmp_path / "report.html"
    result = vitport("compare", swin, "--explain", "--json", "--report", report)
    assert result.code == 0, result.err
    found = json.loads(result.out)
    names = [row["name"] for row in found["activations"]]
    assert names == list(activation_names(conversion.load(swin).config))
    assert {row["verdict"] for row in found["activations"]} == {"rounding"}
    assert found["explanations"] == []
    page = report.read_text(encoding="utf-8")
    assert all(name in page for name in names)
    assert "layers.0.blocks.1.attn.masked" in names


@pytest.mark.slow
@pytest.mark.parametrize("swin", [1, 2], indirect=True)
def test_steps_of_both_frameworks_stay_together_in_float64(swin: Path, vitport: Callable[..., Any]):
    """As far as the ViT's: 1e-10 after two steps."""
    options = ("--dtypes", "float64", "--count", "2", "--batch", "2", "--fail-above", "1e-10", "--json")
    result = vitport("steps", swin, *options)
    assert result.code == 0, result.err
    for run in json.loads(result.out)["runs"]:
        assert len(run["steps"]) == 2
        assert 0 < max(step["distance"] for step in run["steps"]) <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("swin", [1, 2], indirect=True)
def test_a_sweep_runs_every_setting(swin: Path, vitport: Callable[..., Any]):
    """Oracle: float64. 2e-6 is some 16 unit roundoffs of float32, as in tests/vit_parity/test_sweep.py."""
    result = vitport("sweep", swin, "--dtypes", "float32", "--batch", "2", "--json")
    assert result.code == 0, result.err
    cases = json.loads(result.out)["cases"]
    assert len(cases) == 10
    for case in cases:
        assert not case["refused"]
        assert 0 < case["error"] < 2e-6, case
        assert case["repeats"]


def test_models_lists_every_name_with_its_size_and_cost(vitport: Callable[..., Any]):
    """Names of timm and torchvision; the numbers are those of tests/vit_spec/swin/test_models.py."""
    found = {model["name"]: model for model in json.loads(vitport("models", "swin*", "--json").out)}
    assert len(found) == 21 + 6
    assert found["swin_tiny_patch4_window7_224"]["parameters"] == 28_288_354
    assert found["swin_v2_b"]["parameters"] == 87_918_816
    assert found["swin_tiny_patch4_window7_224"]["flops"] / 2e9 == pytest.approx(4.5, abs=0.05)
    refused = vitport("inspect", CARRIED, "--model", "swinv2_cr_tiny_224")
    assert refused.code == 2
    assert refused.err.startswith("vitport: swinv2_cr_tiny_224 is not supported: SwinV2-CR is another model")
