"""The same run on one device, eight, FSDP, tensor, all three axes, and pmap: simulated devices, in another process; and
models of parallel blocks on one device and on all three axes.

Dropout, attention dropout, stochastic depth, mixup, CutMix, smoothing and a moving average are all on. Oracle: the run
on one device. Measured, float32, 4 steps: losses 2.4e-7 of each other, weights at most 1.1e-6 apart, average 2.6e-7.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulated import QUICK, simulated

pytestmark = pytest.mark.jax_alone

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json
import re
import sys
import numpy as np
from tests.vit_jax.training.runs import CONFIG, RECIPE, compiled, run, without
from vit_jax.training import MeshShape
from vit_jax.training.ahead.exchange import exchanges
from vit_jax.training.ahead.program import read_program

PARALLEL = CONFIG.replace(block="parallel", qk_norm=True, qkv_bias=False)

ways = {
    "eight": dict(mesh=MeshShape()),
    "fsdp": dict(mesh=MeshShape(1, 8, 1), scan=True),
    "fsdp, no scan": dict(mesh=MeshShape(1, 8, 1)),
    "tensor": dict(mesh=MeshShape(2, 1, 4)),
    "data x fsdp x tensor": dict(mesh=MeshShape(2, 2, 2)),
    "data x fsdp x tensor, scan": dict(mesh=MeshShape(2, 2, 2), scan=True),
    "pmap": dict(mesh=None),
    "pmap, scan": dict(mesh=None, scan=True),
    "accumulation": dict(mesh=MeshShape(), devices=1, recipe=without(RECIPE, accumulation=4)),
    "parallel blocks": dict(mesh=MeshShape(2, 2, 2), config=PARALLEL, scan=True),
}
ways = {name: options for name, options in ways.items() if name in sys.argv[1:]}
configs = {CONFIG, *(options.get("config", CONFIG) for options in ways.values())}
alone = {config: run(MeshShape(), devices=1, config=config, scan=config == PARALLEL) for config in configs}
losses, _ = alone[CONFIG]
def furthest(first, second):
    return max(float(np.abs(np.asarray(first[path]) - np.asarray(second[path])).max()) for path in first)
found = {}
for name, options in ways.items():
    expected, state = alone[options.get("config", CONFIG)]
    other, last = run(**options)
    found[name] = {
        "losses": max(abs(a - b) for a, b in zip(expected, other)),
        "params": furthest(state.params, last.params),
        "ema": furthest(state.ema, last.ema),
        "cut": {path: str(array.sharding.spec) for path, array in last.params.items()} if options["mesh"] else {},
    }
gathered, summed = {}, {}
for dtype in ("float32", "bfloat16"):
    text = compiled(MeshShape(1, 8, 1), scan=True, dtype=dtype)
    shapes = re.findall(r"= b?f\\d+\\[([\\d,]+)\\]\\S* all-gather\\(", text)
    gathered[dtype] = [[int(x) for x in dims.split(",")] for dims in shapes]
for one in exchanges(read_program(compiled(MeshShape(2, 4, 1), scan=True)), 8):
    if one.kind in ("all-reduce", "reduce-scatter") and one.times > 1:  # in a loop over blocks
        summed.setdefault(f"{one.kind} {one.members}", []).append(one.bytes)
print(json.dumps({"losses": losses, "found": found, "gathered": gathered, "summed": summed}))
"""


WAYS = ("eight", "fsdp", "tensor", "data x fsdp x tensor, scan", "pmap, scan", "parallel blocks")
SLOW_WAYS = ("fsdp, no scan", "data x fsdp x tensor", "pmap", "accumulation")
"""Of which the ones above are nearly all."""


def _answer(*ways: str) -> dict[str, Any]:
    command, environment = [sys.executable, "-c", SCRIPT, *ways], simulated(8, QUICK)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["losses"][-1] < answer["losses"][0]
    return answer


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    return _answer(*WAYS)


@pytest.fixture(scope="module")
def found(answer) -> dict[str, dict[str, Any]]:
    return answer["found"]


def _check_close(found: dict[str, Any]) -> None:
    assert found["losses"] < 2e-6
    assert found["params"] < 1e-5
    assert found["ema"] < 2e-6


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_losses_and_the_weights_of_one_device(way, found) -> None:
    _check_close(found[way])


@pytest.mark.slow
def test_without_a_scan_and_by_parts_too(found) -> None:
    slow = _answer(*SLOW_WAYS)["found"]
    for way in SLOW_WAYS:
        _check_close(slow[way])
    assert found["data x fsdp x tensor, scan"]["cut"] == slow["data x fsdp x tensor"]["cut"]


def test_parameters_lie_cut_where_the_mesh_says_so(found) -> None:
    cut = {way: set(found[way]["cut"].values()) for way in found}
    assert any("fsdp" in spec for spec in cut["fsdp"])
    assert any("tensor" in spec for spec in cut["tensor"])
    assert not any("tensor" in spec or "fsdp" in spec for spec in cut["eight"])


def test_the_tensor_axis_cuts_every_layer_of_parallel_blocks(found) -> None:
    specs = {path: spec for path, spec in found["parallel blocks"]["cut"].items() if path.startswith("blocks/1/")}
    cut = {path.removeprefix("blocks/1/") for path, spec in specs.items() if "tensor" in spec}
    assert cut == {"in_proj/kernel", "mlp_bias", "attn_out_proj/kernel", "mlp_out_proj/kernel"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_scan_under_fsdp_gathers_one_blocks_weights_in_both_passes_and_no_tokens(dtype, answer) -> None:
    """Left alone, XLA cuts heads as it cuts weights, and keeps what it has gathered: all blocks whole."""
    shapes = [tuple(dims) for dims in answer["gathered"][dtype]]
    for kernel in ((32, 96), (32, 32), (32, 64), (64, 32)):
        same = [dims for dims in shapes if sorted(dims[-2:]) == sorted(kernel)]
        assert len(same) == (4 if kernel in ((32, 64), (64, 32)) else 2), kernel
        assert all(math.prod(dims) == math.prod(kernel) for dims in same)
    # 16 images of 7 tokens
    assert not any(7 in dims or 16 * 7 in dims for dims in shapes)


def test_under_data_and_fsdp_a_scan_scatters_whole_kernels_along_fsdp_alone(answer) -> None:
    """Among the four along ``fsdp``; along ``data`` go the quarters. Left alone, XLA sums whole kernels among all
    eight."""
    kernels, others = 4 * (32 * 96 + 32 * 32 + 2 * 32 * 64), 4 * (4 * 32 + 96 + 32 + 64 + 32)
    summed = {how: sum(sizes) for how, sizes in answer["summed"].items()}
    assert summed.pop("reduce-scatter (0, 1, 2, 3)") == kernels
    assert sum(summed.values()) == kernels / 4 + others
    assert summed.get("all-reduce (0, 1, 2, 3, 4, 5, 6, 7)", 0) <= others
