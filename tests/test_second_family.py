"""A family that no module outside its own files knows is built, converted, trained and sharded like a ViT.

Its models merge tokens between two stages, so blocks come in two segments of other widths (``tests/toy_family``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import conversion
import vit_jax
import vit_torch
from tests.random_weights import random_params
from tests.toy_family.register import registered
from tests.toy_family.spec import ToyConfig
from tests.vit_jax.training.runs import RECIPE, run
from vit_jax import training
from vit_jax.inference.microbatch import microbatch_size
from vit_jax.training.devices.sharding import check_divides
from vit_jax.training.scaling import CHIPS, Step, rank
from vit_jax.training.scaling.cut import SegmentCut, cut_model
from vit_jax.training.scaling.step import activation_bytes, flops
from vit_jax.training.step.stacked import stack
from vit_parity.capture import capture_jax, capture_torch
from vit_parity.frameworks import jax_model, torch_model
from vit_parity.local_errors import local_errors
from vit_parity.points import activation_names
from vit_parity.rollout import rollout
from vit_parity.truth import truth_of
from vit_spec import ViTConfig, VitportError, config_from_dict, forward_flops, parameters, segments

CONFIG = ToyConfig()


@pytest.fixture(autouse=True)
def family() -> Iterator[None]:
    with registered():
        yield


def checkpoint() -> conversion.Checkpoint[ToyConfig]:
    return conversion.Checkpoint.of(CONFIG, random_params(CONFIG, seed=2, dtype=np.float32))


def test_a_config_returns_from_its_record() -> None:
    assert config_from_dict(CONFIG.to_dict()) == CONFIG


def test_both_models_have_the_parameters_of_the_list() -> None:
    ours = {name: tuple(tensor.shape) for name, tensor in vit_torch.create_model(CONFIG).state_dict().items()}
    assert list(ours.items()) == [(it.name, it.shape) for it in parameters(CONFIG)]
    assert sorted(vit_jax.get_params(vit_jax.create_model(CONFIG))) == sorted(it.path for it in parameters(CONFIG))


def test_weights_through_the_flax_tree_give_the_same_outputs() -> None:
    """float32; measured 4.0e-7 of the largest."""
    params = random_params(CONFIG, seed=2, dtype=np.float32)
    tree = conversion.to_flax(params)
    assert {path: array.shape for path, array in tree.items()} == {
        path: array.shape for path, array in vit_jax.get_params(vit_jax.create_model(CONFIG)).items()
    }
    back = conversion.from_flax(tree)
    assert all(np.array_equal(back[name], array) for name, array in params.items())
    images = np.random.default_rng(0).standard_normal((3, 8, 12, 3)).astype(np.float32)
    in_torch, in_jax = vit_torch.create_model(CONFIG).eval(), vit_jax.create_model(CONFIG)
    in_torch.load_state_dict({name: torch.tensor(array) for name, array in params.items()})
    vit_jax.set_params(in_jax, tree)
    in_jax.eval()
    with torch.no_grad():
        expected = in_torch(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(in_jax(jnp.asarray(images)), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_a_file_of_it_is_written_recognised_and_read(tmp_path: Path) -> None:
    """``timm`` is each family's own format; what shapes do not show is asked for, unless a record tells it."""
    path = tmp_path / "toy.safetensors"
    conversion.save(checkpoint(), path, format="timm")
    read = conversion.load(path)
    assert (read.config, read.provenance.format) == (CONFIG, "toy")
    assert all(np.array_equal(read.params[name], array) for name, array in checkpoint().params.items())
    save_file(dict(read.params), tmp_path / "bare.safetensors")
    with pytest.raises(VitportError, match="does not say its heads"):
        conversion.load(tmp_path / "bare.safetensors")
    assert conversion.load(tmp_path / "bare.safetensors", model=CONFIG).config == CONFIG
    with pytest.raises(VitportError, match="family toy, but the config given is of the family vit"):
        conversion.load(tmp_path / "bare.safetensors", model=ViTConfig())
    with pytest.raises(VitportError, match="holds no models of the family toy: choose one of timm"):
        conversion.save(checkpoint(), tmp_path / "other", format="big-vision")


def test_heads_sizes_and_positions_change_as_far_as_the_family_can() -> None:
    changed = conversion.Changes(head="zero", num_classes=7).apply(checkpoint())
    assert (changed.config.num_classes, changed.params["head.weight"].shape) == (7, (7, 64))
    assert conversion.prepare(None, weights=checkpoint(), in_channels=1).config.in_channels == 1
    with pytest.raises(VitportError, match="has no position table"):
        conversion.Changes(positions="prefix").apply(checkpoint())
    with pytest.raises(VitportError, match="activation='tanh' cannot replace"):
        conversion.Changes(activation="tanh").apply(checkpoint())


def test_both_frameworks_are_observed_block_by_block() -> None:
    """float32; measured 5.5e-7 of the largest in every activation, and each block's own error 1.8e-7."""
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)
    first, second = capture_torch(torch_model(checkpoint()), images), capture_jax(jax_model(checkpoint()), images)
    assert list(first.activations) == list(second.activations) == list(activation_names(CONFIG))
    for name, array in first.activations.items():
        far = np.abs(second.activations[name] - array).max() / np.abs(array).max()
        assert far < 2e-6, (name, far)
    truth = truth_of(checkpoint(), images)
    for framework in ("torch", "jax"):
        errors = local_errors(framework, checkpoint(), truth, "float32")
        assert list(errors) == [segment.block(at) for segment in segments(CONFIG) for at in range(segment.count)]
        assert 0 < max(errors.values()) < 1e-6
    with pytest.raises(VitportError, match="of the family toy have no attention rollout"):
        rollout(first, CONFIG)


def test_fields_may_be_given_to_create_model_under_the_familys_other_names() -> None:
    assert vit_jax.create_model(CONFIG, img_size=(8, 8)).config.image_size == (8, 8)
    with pytest.raises(VitportError, match="pool='avg' is not a field of ToyConfig"):
        vit_torch.create_model(CONFIG, pool="avg")


@pytest.mark.parametrize("scan", [False, True])
def test_the_forward_pass_of_training_merges_between_segments(scan: bool) -> None:
    """Oracle: the model's own forward pass. Measured 2.1e-7 of the largest."""
    model = vit_jax.create_model(CONFIG)
    params = vit_jax.get_params(model)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 12, 3)), jnp.float32)
    forward = training.Forward(model, scan=scan, remat="full")
    found = forward(stack(params, segments(CONFIG)) if scan else params, images, None)
    expected = model(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * float(jnp.abs(expected).max()))


@pytest.mark.slow
def test_a_scan_trains_like_the_loop() -> None:
    """Two steps with dropout and stochastic depth, AdamW, weight decay by layer. Measured: weights 1.2e-7 apart."""
    config = CONFIG.replace(drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.2)
    recipe = dataclasses.replace(RECIPE, optimizer=dataclasses.replace(RECIPE.optimizer, layer_decay=0.7))
    train = partial(run, training.MeshShape(), 2, config, recipe, 1)
    losses, state = train()
    others, stacked = train(scan=True)
    np.testing.assert_allclose(others, losses, rtol=4e-6)
    assert set(stacked.params) == set(state.params) == {it.path for it in parameters(CONFIG)}
    for path, array in state.params.items():
        np.testing.assert_allclose(stacked.params[path], array, rtol=0, atol=1e-6, err_msg=path)
    start = conversion.to_flax(random_params(config, seed=1, dtype=np.float32))
    assert all(np.abs(np.asarray(state.params[path]) - array).max() > 1e-5 for path, array in start.items())


def test_the_tensor_axis_must_divide_every_segments_heads() -> None:
    mesh = training.make_mesh(training.MeshShape(1, 1, 1))
    check_divides(CONFIG, 16, 1, mesh)
    wide = jax.sharding.AbstractMesh((1, 1, 4), ("data", "fsdp", "tensor"))
    with pytest.raises(VitportError, match=r"tensor=4 does not divide num_heads in levels\.0\.blocks, 2: choose"):
        check_divides(CONFIG, 16, 1, wide)


def test_a_steps_cost_is_the_sum_over_segments() -> None:
    cut = cut_model(CONFIG, 1, 2)
    assert cut.segments == (SegmentCut(2 * 8 * 32**2, 2, 4, 4), SegmentCut(3 * 8 * 64**2, 3, 6, 6))
    alone, shared = (Step(CONFIG, 16, training.MeshShape(1, 1, tensor)) for tensor in (1, 2))
    assert flops(alone) == 3 * 16 * forward_flops(CONFIG)
    blocks = 2 * (2 * (6 * 8 * 32**2 + 2 * 36 * 32) + 3 * (3 * 8 * 64**2 + 2 * 9 * 64))
    assert flops(alone) - flops(shared) == 3 * 16 * blocks / 2
    # Two norms of four arrays, three of them in float32; inputs of layers; heads before their division; weights twice.
    first = 6 * 32 * (2 * (3 * 4 + 2) + 8 * 2 + 4) + 2 * 36 * (4 + 2)
    second = 3 * 64 * (2 * (3 * 4 + 2) + 8 * 2 + 4) + 4 * 9 * (4 + 2)
    assert activation_bytes(alone) == (16 * first, 16 * second)
    assert rank(CONFIG, 64, 8, CHIPS["h100"])


def test_microbatches_follow_the_widest_activation() -> None:
    """6 tokens of 64 hidden units in float32: 3413 images fill 5 MiB, and 2048 is the next divisor of 4096."""
    assert [microbatch_size(CONFIG, 4096, itemsize, threads=1) for itemsize in (4, 2)] == [2048, 4096]
