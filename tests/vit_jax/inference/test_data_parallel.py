"""Batches shared out among devices. Oracles: the model itself, image by image, and counts made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vit_jax.cores import cores

pytestmark = pytest.mark.jax_alone

ROOT = Path(__file__).parents[3]
SHARED = """
import json

import jax
import numpy as np

import vit_jax
from tests.vit_jax.inference.test_microbatch import WIDE
from vit_jax.inference.microbatch import microbatched
from vit_jax.inference.data_parallel import DataParallel
from vit_jax.inference.inference import Inference
from vit_jax.inference.data_parallel import COPIES, device_count

model = vit_jax.create_model(WIDE)
rng = np.random.default_rng(0)
params = {
    path: array + rng.normal(0, 0.05, array.shape).astype(np.float32)
    for path, array in vit_jax.get_params(model).items()
}
images = rng.standard_normal((24, 32, 32, 3)).astype(np.float32)
inference = Inference(model)
alone = np.concatenate([inference(params, image[None]) for image in images])
forward = DataParallel(microbatched(inference), params, 24)
whole = forward(images)
placed = [forward(forward.place(images)), forward(jax.device_put(images, jax.devices()[1]))]
print(json.dumps({
    "devices": len(whole.sharding.device_set),
    "rows": sorted({shard.data.shape[0] for shard in whole.addressable_shards}),
    "error": float(np.abs(whole - alone).max() / np.abs(alone).max()),
    "same": all((np.asarray(whole) == np.asarray(other)).all() for other in placed),
    "counts": {batch: device_count(batch, 1000) for batch in (1, 2, 6, 7, 9, 10, 64)},
    "large": [device_count(64, size) for size in (COPIES // 4, COPIES // 3, COPIES // 2 + 1, 2 * COPIES)],
}))
"""
OFFERED = """
import json
import sys

import jax
from vit_jax.inference.data_parallel import offer_cores

if sys.argv[1] == "late":
    jax.numpy.zeros(1)
offer_cores()
print(json.dumps(jax.device_count()))
"""


def in_new_process(script: str, *args: str, **environment: str) -> Any:
    chosen = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    clean = {name: value for name, value in os.environ.items() if name not in chosen}
    done = subprocess.run(
        [sys.executable, "-c", script, *args], cwd=ROOT, env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return in_new_process(SHARED, JAX_NUM_CPU_DEVICES="4")


def test_each_image_gets_what_it_gets_alone(found) -> None:
    """Six images a device. Measured: 7e-7 of the largest, as a product of other rows is summed in another order."""
    assert found["devices"] == 4
    assert found["rows"] == [6]
    assert found["error"] < 4e-6
    assert found["same"]


def test_as_many_devices_share_a_batch_as_divide_it(found) -> None:
    assert found["counts"] == {"1": 1, "2": 2, "6": 3, "7": 1, "9": 3, "10": 2, "64": 4}


def test_copies_of_large_parameters_are_few(found) -> None:
    """Four, three of which only two divide 64, one, and one however large."""
    assert found["large"] == [4, 2, 1, 1]


@pytest.mark.parametrize(
    ("when", "environment", "devices"),
    [
        ("early", {}, cores()),
        ("early", {"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5),
        ("early", {"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ("late", {}, 1),
    ],
)
def test_cores_are_devices_unless_devices_were_chosen(when, environment, devices) -> None:
    """Late is after JAX's first array."""
    assert in_new_process(OFFERED, when, **environment) == devices


def test_cores_are_those_that_the_process_is_bound_to(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores() == 7
