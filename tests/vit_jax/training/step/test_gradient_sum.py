"""The precision in which devices sum gradients: eight simulated devices, in another process.

Oracle: the gradients of each device's images alone, those of the others weighted by zero, summed in float64. Measured,
in units of the sum of the terms' absolute values: 1.2e-7 in float32; kernels in bfloat16 4.6e-3 by their norm.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulated import QUICK, simulated

pytestmark = pytest.mark.jax_alone

ROOT = Path(__file__).parents[4]
SCRIPT = """
import json
import sys
import jax
import numpy as np
import vit_jax
from tests.vit_jax.training.runs import CONFIG, batches
from vit_jax import training
from vit_spec import Preprocessing

config = CONFIG.replace(depth=1, drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)
recipe = training.Recipe(optimizer=training.Optimizer(beta1=0.0))  # whose first moment is the gradient
batch = batches(1)[0]

def gradients(mesh, weights, precision, **options):
    model = vit_jax.create_model(config, dtype="bfloat16", param_dtype="float32")
    forward = training.Forward(model, gradient_sum=precision, **options)
    optimizer = training.make_optimizer(recipe.optimizer, training.make_schedule(recipe.schedule, 2), config)
    engine = training.jit_engine(
        forward, optimizer, recipe, Preprocessing(), training.make_mesh(mesh), jax.random.key(0)
    )
    params = {path: np.array(array) for path, array in vit_jax.get_params(model).items()}
    for weight in weights:
        state = engine.place_state(training.init_state(params, optimizer, recipe))
        state, metrics = engine.step(state, engine.place_batch({**batch, "weight": weight}))
        (adam,) = [part for part in engine.fetch(state).opt_state if hasattr(part, "mu")]
        yield {path: np.asarray(array, np.float64) for path, array in adam.mu.items()}, float(metrics["loss"])

ones = np.ones(16, np.float32)
alone = [ones * (np.arange(16) // 2 == device) for device in range(8)]
options = json.loads(sys.argv[1])
mesh = training.MeshShape(*options.pop("mesh"))
(found, loss), *parts = gradients(mesh, [ones, *alone], "float32", **options)
((narrow, same),) = gradients(mesh, [ones], "bfloat16", **options)
expected = {path: sum(part[path] for part, _ in parts) for path in found}
terms = {path: sum(abs(part[path]) for part, _ in parts) for path in found}

def apart(values):
    return max(float((abs(values[path] - expected[path])[terms[path] > 0] / terms[path][terms[path] > 0]).max())
               for path in expected)

nothing = max(float(abs(found[path][terms[path] == 0]).max(initial=0)) for path in found)
norm = np.sqrt(sum(float(np.square(array).sum()) for array in expected.values()))
kernels = [path for path in found if path.endswith("kernel")]
rounded = max(float(np.linalg.norm(narrow[path] - expected[path]) / np.linalg.norm(expected[path])) for path in kernels)
print(json.dumps({"wide": apart(found), "narrow": rounded, "losses": [loss, same], "nothing": nothing, "norm": norm}))
"""


def answer(**options: Any) -> dict[str, Any]:
    command = [sys.executable, "-c", SCRIPT, json.dumps(options)]
    done = subprocess.run(command, cwd=ROOT, env=simulated(8, QUICK), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "options",
    [
        {"mesh": [2, 4, 1], "scan": True},
        pytest.param({"mesh": [8, 1, 1]}, marks=pytest.mark.slow),
        pytest.param({"mesh": [1, 8, 1], "scan": True, "remat": "full"}, marks=pytest.mark.slow),
        pytest.param({"mesh": [8, 1, 1], "scan": True, "remat": "dots"}, marks=pytest.mark.slow),
    ],
)
def test_in_float32_the_sum_is_that_of_float64(options: dict[str, Any]) -> None:
    found = answer(**options)
    assert found["norm"] > 0.1
    assert found["nothing"] == 0
    assert found["wide"] < 8 * 2**-24  # seven additions, each rounded
    assert 2**-12 < found["narrow"] < 2**-7
    assert found["losses"][0] == pytest.approx(found["losses"][1], rel=2**-12)
