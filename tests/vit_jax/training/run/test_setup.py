"""What a run chooses by itself, for devices that are not here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.absent_device import Device
from vit_cli.train import long_names
from vit_jax.training.recipe.config import ModelOptions, TrainConfig
from vit_jax.training.recipe.presets import get_preset
from vit_jax.training.run.plan import program_words
from vit_jax.training.run.setup import Setup, set_up

SMALL = ModelOptions(
    "vit_tiny_patch16_224", image_size=8, patch_size=4, in_channels=1, embed_dim=16, depth=2, num_heads=2
)


def ready(platform: str, **options: Any) -> Setup:
    return set_up(TrainConfig(SMALL, batch=8, **options), [Device(platform)], classes=10)


@pytest.mark.parametrize(("platform", "scan"), [("tpu", True), ("cuda", False), ("cpu", False)])
def test_blocks_are_one_scan_on_tpus_and_as_asked_elsewhere(platform, scan) -> None:
    for parallel in ("jit", "pmap"):
        found = ready(platform, parallel=parallel)
        assert found.scan is scan
        assert any("--no-scan" in choice for choice in found.choices) is scan
    asked = ready(platform, scan=True)
    assert asked.scan
    assert not asked.choices
    assert not ready(platform, scan=False).scan


def test_the_program_is_told_with_what_was_chosen() -> None:
    assert program_words(ready("tpu", precision="bfloat16").program) == (
        "8 images, bfloat16, remat dots, attention flash, accumulation 1, scan, gradients summed in bfloat16, "
        "parallel jit"
    )
    assert "remat none, attention cudnn, accumulation 1, unrolled" in program_words(
        ready("cuda", precision="bfloat16").program
    )


def test_a_step_alone_needs_no_length() -> None:
    """Also with a schedule that warms up for long."""
    preset = get_preset("big_vision_s16_90ep").config
    endless = replace(preset, epochs=None)
    assert set_up(endless, [Device("tpu")], classes=10).steps > endless.recipe.schedule.warmup
    assert set_up(replace(endless, steps=10_001), [Device("tpu")], classes=10).steps == 10_001


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["--scan"], ["--scan=True"]),
        (["--no-scan", "--json"], ["--scan=False", "--json"]),
        (["--scan", "auto"], ["--scan", "auto"]),
        (["--scan=False"], ["--scan=False"]),
        (["--scan", "--data", "auto"], ["--scan=True", "--data.path", "auto"]),
    ],
)
def test_scan_stands_alone_or_before_its_value(args, meant) -> None:
    assert long_names(args) == meant
