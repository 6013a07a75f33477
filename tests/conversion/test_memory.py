"""Conversions hold a few tensors and not the model. Oracle: the kernel's count of the most that was resident (VmHWM).

Each pair is converted once with a small model before, so that libraries are loaded and not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
import conversion
from vit_spec import ViTConfig, parameters

folder = Path(sys.argv[1])
FORMATS = {"google": "google", "pytorch": "torchvision", "flax": "flax", "msgpack": "google-linen"}
LARGE = ViTConfig(embed_dim=768, num_heads=12, depth=8, num_classes=0, norm_eps=1e-6)
SMALL = LARGE.replace(embed_dim=24, num_heads=3, depth=1)

def kilobytes(what):
    return int(Path("/proc/self/status").read_text().partition(what)[2].split()[0])

def config_of(config, *names):
    return config.replace(activation="gelu" if "pytorch" in names else "gelu_tanh")

results = {}
for source, target in json.loads(sys.argv[2]):
    for run, config in (("small", SMALL), ("large", LARGE)):
        config = config_of(config, source, target)
        rng = np.random.default_rng(0)
        params = {entry.name: rng.standard_normal(entry.shape, dtype=np.float32) for entry in parameters(config)}
        size = sum(array.nbytes for array in params.values())
        conversion.save(conversion.Checkpoint.of(config, params), folder / f"{run}-{source}", overwrite=True,
                        format=FORMATS.get(source, "timm"), activation="keep")
        del params
        Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS:")
        conversion.save(conversion.load(folder / f"{run}-{source}", model=config), folder / f"{run}-{target}",
                        format=FORMATS.get(target, "timm"), activation="keep", overwrite=True)
        after = kilobytes("VmHWM:")
    results[f"{source}-{target}"] = (1024 * (after - before) / size)
json.dump(results, sys.stdout)
"""
PAIRS = [("timm", "google"), ("google", "timm"), ("timm", "pytorch"), ("timm", "msgpack"), ("msgpack", "timm"),
         ("timm", "flax")]  # fmt: skip
SHARE = {"timm-flax": 0.9}
"""Of the model's 227 MB, by pair; else 0.35. Measured: 0.60, else at most 0.26; holding all of it, 1 or more."""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel's peak cannot be reset")
def test_no_conversion_holds_the_model(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, json.dumps(PAIRS)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert set(results) == {f"{source}-{target}" for source, target in PAIRS}
    for pair, share in results.items():
        assert share < SHARE.get(pair, 0.35), results
