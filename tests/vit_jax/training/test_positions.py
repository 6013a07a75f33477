"""Models with rotary or relative positions, and with other blocks, train alike in every way.

That is on one device, on meshes, under pmap and with scanned blocks: simulated devices, in another process. Oracle: the
run on one device.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulated import QUICK, simulated

pytestmark = [pytest.mark.jax_alone, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
KINDS: dict[str, dict[str, Any]] = {
    "dinov3": {"rotary": {"kind": "dinov3"}, "register_tokens": 2, "mlp": "swiglu", "qk_norm": True},
    "mixed": {"rotary": {"kind": "mixed"}},
    "beit": {"relative_bias": True, "qkv_bias": False, "qv_bias": True},
    "eva02": {
        "rotary": {"kind": "axial", "reference_grid": [16, 16]}, "pos_embed": "prefix", "mlp": "swiglu",
        "mlp_norm": True, "attn_norm": True, "qkv_bias": False, "qv_bias": True,
    },
    "pe": {
        "rotary": {"kind": "axial", "order": "wh", "offset": 1.0}, "pre_norm": True, "patch_bias": False, "pool": "map",
        "pool_prefix": True, "map_heads": 8,
    },
    "relpos": {"relative_hidden_dim": 12, "class_token": False, "pool": "avg", "final_norm": "pooled"},
    "sapiens2": {
        "rotary": {"kind": "dinov3"}, "scale_attention_only": True, "qk_norm": True, "norm": "rmsnorm",
        "norm_bias": False, "mlp": "swiglu_packed",
    },
    "deepseek": {
        "rotary": {"kind": "axial", "pairs": "halves"}, "mlp_bias": False, "mlp": "swiglu_packed", "class_token": False,
        "pool": "avg", "norm": "rmsnorm", "norm_bias": False,
    },
    "differential": {"differential": True, "pos_embed": "prefix"},
    "branched": {"block": "branched", "pos_embed": "prefix"},
    "original": {"block": "original", "pos_embed": "prefix"},
}  # fmt: skip
SCRIPT = """
import json
import sys
import numpy as np
from tests.vit_jax.training.runs import run
from vit_jax.training import MeshShape
from vit_spec import ViTConfig

config = ViTConfig().replace(
    image_size=(16, 24), patch_size=4, num_classes=5, embed_dim=32, depth=2, num_heads=4, mlp_hidden_dim=64,
    **{"pos_embed": "none", "layer_scale": 0.1, "drop_rate": 0.1, "drop_path_rate": 0.2, **json.loads(sys.argv[1])},
)
ways = {
    "data x fsdp x tensor": dict(mesh=MeshShape(1, 2, 2)),
    "data x fsdp x tensor, scan": dict(mesh=MeshShape(1, 2, 2), scan=True),
    "pmap, scan": dict(mesh=None, scan=True),
}
losses, state = run(MeshShape(), devices=1, config=config, steps=3)

def furthest(first, second):
    return max(float(np.abs(np.asarray(first[path]) - np.asarray(second[path])).max()) for path in first)

found = {}
for name, options in ways.items():
    other, last = run(config=config, steps=3, **options)
    found[name] = {
        "losses": max(abs(a - b) for a, b in zip(losses, other)),
        "params": furthest(state.params, last.params),
    }
print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_gives_the_losses_and_the_weights_of_one_device(kind: str) -> None:
    """With the bounds of tests/vit_jax/training/test_parallel.py."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(KINDS[kind])]
    done = subprocess.run(command, cwd=ROOT, env=simulated(4, QUICK), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for way, distances in json.loads(done.stdout.splitlines()[-1]).items():
        assert distances["losses"] < 2e-6, way
        assert distances["params"] < 1e-5, way
