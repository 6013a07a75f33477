"""What a compiled step exchanges, counted in its program. Oracle: XLA, for simulated devices, in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulated import QUICK, simulated

ROOT = Path(__file__).parents[4]
SCRIPT = """
import json
import sys
from benchmarks.collectives import compare
from vit_jax.training.scaling import Step
from vit_jax.training.recipe.execution import MeshShape
from vit_spec import ViTConfig

for depth in (1, 2):
    model = ViTConfig(
        image_size=64, patch_size=8, num_classes=16, embed_dim=64, depth=depth, num_heads=4, mlp_hidden_dim=256,
        drop_path_rate=0.1, block=sys.argv[1], qkv_bias=sys.argv[1] != "parallel",
    )
    found = compare(Step(model, 16, MeshShape(2, 2, 2), "float32", "full"))
    print(json.dumps([found.predicted, found.counted]), flush=True)
"""


def run(devices: int, *command: str) -> list[Any]:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=simulated(devices, QUICK), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("block", ["sequential", "parallel"])
def test_one_block_more_exchanges_what_is_predicted(block: str) -> None:
    """Of programs of one block and of two: what else a program exchanges is the same in both.

    The model has fewer classes than it is wide: were the tokens not held where their images are, the backward pass
    would move them with the head's gradient.
    """
    predicted, counted = zip(*run(8, "-c", SCRIPT, block), strict=True)
    for kind in predicted[0].keys() | counted[0].keys() | counted[1].keys():
        more = counted[1].get(kind, 0) - counted[0].get(kind, 0)
        # The norms of its parameters and gradients: measured 80 bytes of 480,000.
        assert 0 <= more - (predicted[1].get(kind, 0) - predicted[0].get(kind, 0)) <= 128, kind


@pytest.mark.slow
@pytest.mark.parametrize("devices", [8, 64])
def test_the_steps_of_the_page_exchange_what_is_predicted(devices: int) -> None:
    """Those of docs/reports/scaling.md, which has the measured figures."""
    found = run(devices, "-m", "benchmarks.scaling", "--compile-for", str(devices))
    assert max(row["error"] for row in found) < 0.03
