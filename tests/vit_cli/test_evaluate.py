"""`vitport evaluate` on several devices. Oracle: the same on one, and the labels."""

from __future__ import annotations

import pytest

from tests.vit_jax.inference.test_data_parallel import ROOT, in_new_process
from vit_jax.cores import cores

pytestmark = pytest.mark.jax_alone

WEIGHTS = ROOT / "vit_cli" / "assets" / "digits_vit.safetensors"
EVALUATED = """
import json
import sys
from contextlib import redirect_stdout
from io import StringIO

from vit_cli.main import main
from vit_jax.inference import DataParallel

sizes, begin = [], DataParallel.__init__

def noting(self, *args):
    begin(self, *args)
    sizes.append(self.mesh.size)

DataParallel.__init__ = noting
found = []
for options in ([], ["--knn", "5"]):
    with redirect_stdout(StringIO()) as said:
        assert main(["evaluate", sys.argv[1], "--data", "digits", "--batch", "60", "--json", *options]) == 0
    found.append(json.loads(said.getvalue()))
print(json.dumps([sizes, *found]))
"""


def test_devices_share_batches_and_find_what_one_finds() -> None:
    """Scores, then features of both splits. Measured: losses 4e-8 apart, accuracies the same."""
    pytest.importorskip("sklearn")
    (alone, *expected), (shared, *found), (offered, *_) = (
        in_new_process(EVALUATED, str(WEIGHTS), **devices)
        for devices in ({"JAX_NUM_CPU_DEVICES": "1"}, {"JAX_NUM_CPU_DEVICES": "4"}, {})
    )
    assert alone == [1] * 3
    assert shared == [4] * 3
    assert offered == [max(count for count in range(1, cores() + 1) if 60 % count == 0)] * 3
    for one, other in zip(expected, found, strict=True):
        assert _numbers(other) == pytest.approx(_numbers(one), rel=0, abs=1e-6)
    assert found[0]["images"] == 360
    assert found[0]["accuracy"] > 0.98


def _numbers(found: dict[str, object]) -> dict[str, float]:
    timed = "images_per_second"  # another each time
    return {name: value for name, value in found.items() if isinstance(value, int | float) and name != timed}
