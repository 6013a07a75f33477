"""Flax checkpoints saved on one number of devices and restored on another. Oracle: the arrays that were saved.

Each number of devices is a process of its own, whose CPU pretends to be so many (XLA's host platform). One folder is
what ``conversion.save`` writes, each array whole; the other an NNX state whose matrices were spread over eight devices.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

import conversion
from tests.conversion.canaries import assert_same_tensors
from tests.random_weights import random_params
from tests.simulated import simulated
from vit_spec import ViTConfig

CONFIG = ViTConfig(
    image_size=(12, 20), patch_size=4, num_classes=16, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=40
)
PARAMS = random_params(CONFIG, seed=3, dtype="float32")
COMMON = """
import sys, jax, numpy as np, orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import conversion, vit_jax
from tests.conversion.test_orbax_devices import CONFIG, PARAMS
# Layer by layer, several programs with sums among devices would be under way at once, and each hold threads that the
# others wait for: with two cores, eight devices may stop for ever.
jax.config.update("jax_cpu_enable_async_dispatch", False)
folder, available = sys.argv[1], int(sys.argv[2])
assert jax.device_count() == available

def spread(array, count):
    mesh = Mesh(np.array(jax.devices()[:count]), ("model",), axis_types=(AxisType.Auto,))
    axes = [None] * array.ndim
    if array.ndim > 1 and array.shape[-1] % count == 0:
        axes[-1] = "model"
    return NamedSharding(mesh, PartitionSpec(*axes))
"""
SAVE = """
model = vit_jax.create_model(weights=conversion.Checkpoint.of(CONFIG, PARAMS))
state = nnx.state(model, nnx.Param)
with ocp.StandardCheckpointer() as saver:
    saver.save(folder + "/spread", jax.tree.map(lambda array: jax.device_put(array, spread(array, 8)), state))
model.eval()
np.save(folder + "/logits.npy", model(np.load(folder + "/images.npy")))
"""
RESTORE = """
def restored(kind, count):
    model = nnx.eval_shape(lambda: vit_jax.VisionTransformer(CONFIG, rngs=nnx.Rngs(0)))
    state = nnx.state(model, nnx.Param)
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=spread(x, count)), state)
    if kind == "spread":
        nnx.update(model, ocp.StandardCheckpointer().restore(folder + "/spread", wanted))
        return model
    paths = {"/".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(wanted)}
    tree = ocp.StandardCheckpointer().restore(folder + "/whole/params", conversion.tensors.flax_tree.nest(paths))
    arrays = conversion.tensors.flax_tree.flatten(tree)
    nnx.update(model, nnx.from_flat_state((path, leaf.replace(arrays["/".join(map(str, path))]))
                                          for path, leaf in nnx.to_flat_state(state)))
    return model

tree = conversion.to_flax(PARAMS)
for count in (1, 2, 8):
    for kind in ("whole", "spread"):
        if count > available:
            continue
        model = restored(kind, count)
        arrays = vit_jax.get_params(model)
        for path, array in tree.items():
            assert np.array_equal(np.asarray(arrays[path]), array), path
            assert len(arrays[path].sharding.device_set) == count, path
        assert arrays["blocks/1/attn/qkv/kernel"].addressable_shards[0].data.shape == (24, 72 // count)
        assert arrays["head/kernel"].addressable_shards[0].data.shape == (24, 16 // count)
        if count == available:
            model.eval()
            logits = model(np.load(folder + "/images.npy"))
            np.testing.assert_allclose(logits, np.load(folder + "/logits.npy"), rtol=0, atol=1e-5)
        print(kind, count)
    loaded = conversion.to_flax(conversion.load(folder + "/spread", model=CONFIG).params)
    assert all(np.array_equal(loaded[path], array) for path, array in tree.items())
"""
"""Logits lie within 1.8; the largest difference from those of a model on one device was 7e-7."""


def run(code: str, devices: int, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COMMON + code, *map(str, arguments)], env=simulated(devices), capture_output=True,
        text=True, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Both checkpoints, two images, and the model's logits for them."""
    folder = tmp_path_factory.mktemp("orbax")
    np.save(folder / "images.npy", np.random.default_rng(0).standard_normal((2, 12, 20, 3)).astype(np.float32))
    conversion.save(conversion.Checkpoint.of(CONFIG, PARAMS), folder / "whole", format="flax")
    run(SAVE, 8, folder, 8)
    return folder


def test_an_nnx_state_spread_over_eight_devices_is_read_without_any(folder) -> None:
    """In this process, which has one. Oracle besides: in the checkpoint the matrix is in eight pieces."""
    assert_same_tensors(conversion.load(folder / "spread", model=CONFIG).params, PARAMS)
    place = {"driver": "ocdbt", "base": (folder / "spread").as_uri()}
    keys = ts.KvStore.open(place).result().list().result()
    assert sum(key.startswith(b"blocks.1.attn.qkv.kernel.value/0.") for key in keys) == 8
    assert sum(key.startswith(b"blocks.1.attn.qkv.bias.value/0") for key in keys) == 1


@pytest.mark.parametrize(
    "devices", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 8]
)
def test_a_checkpoint_is_restored_on_any_number_of_devices(folder, devices) -> None:
    """Straight onto the devices by orbax, and by ``conversion.load``; eight devices serve as one and two as well."""
    lines = run(RESTORE, devices, folder, devices).split("\n")
    assert lines == [f"{kind} {count}" for count in (1, 2, 8) if count <= devices for kind in ("whole", "spread")] + [
        ""
    ]
