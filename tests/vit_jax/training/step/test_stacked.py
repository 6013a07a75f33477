"""Stacked blocks: what is stored otherwise is trained alike, and saved alike. Oracle: the steps of single blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vit_jax
from tests.vit_jax.training.runs import CONFIG, RECIPE, batches, run, without
from vit_jax import training
from vit_jax.training.step.optimizer import make_optimizer
from vit_jax.training.step.stacked import stack, unstack
from vit_spec import Preprocessing, ViTConfig, segments

pytestmark = pytest.mark.jax_alone

ONE = training.MeshShape()
WIDE = CONFIG.replace(embed_dim=128, mlp_hidden_dim=256, depth=3, qkv_bias=False, drop_rate=0.0, attn_drop_rate=0.0)
"""Wide enough that Adafactor factors its second moments; without the keys' bias, since its gradient is nothing but
rounding, which Adafactor brings to the size of the others."""


def _optimizer(name: training.Optimizer | str = "adamw", **options: object) -> training.Optimizer:
    return training.Optimizer(name=name, epsilon=1e-5, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "optimizer",
    [
        _optimizer(clip_norm=1.0, layer_decay=0.6),
        _optimizer("adafactor", layer_decay=0.6),
        _optimizer("muon", frozen=("blocks/1",), clip_norm=0.5),
        *(
            pytest.param(it, marks=pytest.mark.slow)
            for it in (
                _optimizer(frozen=("patch_embed", "blocks/1")),
                _optimizer(frozen=("blocks",), sharpness=0.1),
                _optimizer("lamb", frozen=("blocks/0", "blocks/2/mlp")),
                _optimizer("sgd", sharpness=0.1, frozen=("blocks/2",)),
            )
        ),
    ],
    ids=lambda options: f"{options.name} {' '.join(options.frozen)}",
)
def test_every_optimizer_takes_the_same_steps(optimizer) -> None:
    """Three steps, float32. Measured, of each array's largest: 1e-6 of weights and moments; Adafactor's momentum, in
    bfloat16, 2.2e-3, less than a unit of its last place (2**-8)."""
    recipe = without(RECIPE, optimizer=optimizer, accumulation=2, loss=training.Loss())
    losses, single = run(ONE, 3, WIDE, recipe, devices=1)
    found, stacked = run(ONE, 3, WIDE, recipe, devices=1, scan=True)
    np.testing.assert_allclose(found, losses, rtol=4e-6)
    assert jax.tree.structure(stacked) == jax.tree.structure(single)
    for path, (mine, theirs) in _both(stacked, single).items():
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), path
        mine, theirs = (np.asarray(x, np.float32) for x in (mine, theirs))
        far = np.abs(mine - theirs).max() / max(np.abs(theirs).max(), 1e-6)
        assert far <= (2**-8 if "[2].ema" in path and optimizer.name == "adafactor" else 1e-5), path


def test_the_optimizer_is_traced_once_for_all_blocks_and_takes_optaxs_steps() -> None:
    """Oracle: optax.adamw over all parameters at once. Measured: 1.7e-7 of each array's largest update."""
    shapes = {
        "head/kernel": (8, 3),
        **{f"blocks/{at}/mlp/fc1/{name}": (8, 8) for at in range(12) for name in ("kernel", "bias")},
    }
    rng = np.random.default_rng(0)
    params, *gradients = (
        {path: jnp.asarray(rng.standard_normal(shape), jnp.float32) for path, shape in shapes.items()} for _ in range(3)
    )
    rate = optax.linear_schedule(1e-2, 1e-3, 2)
    mine = make_optimizer(_optimizer(weight_decay=0.1), rate, ViTConfig())
    kernels = {path: path.endswith("kernel") for path in params}
    theirs = optax.adamw(rate, 0.9, 0.999, 1e-5, weight_decay=0.1, mask=kernels)
    states = [mine.init(params), theirs.init(params)]
    for gradient in gradients:
        (found, states[0]), (expected, states[1]) = (
            jax.jit(optimizer.update)(gradient, state, params)
            for optimizer, state in zip((mine, theirs), states, strict=True)
        )
        for path, update in expected.items():
            np.testing.assert_allclose(found[path], update, rtol=0, atol=1e-6 * float(jnp.abs(update).max()))
    lines = _lines(mine.update, gradients[0], states[0], params), _lines(theirs.update, gradients[0], states[1], params)
    assert lines[0] < lines[1] / 3


def _lines(function: Callable[..., Any], *arguments: Any) -> int:
    return len(jax.jit(function).lower(*arguments).as_text().splitlines())


def _both(mine: training.TrainState, theirs: training.TrainState) -> dict[str, tuple[jax.Array, jax.Array]]:
    leaves = (jax.tree_util.tree_leaves_with_path(tree) for tree in (mine, theirs))
    return {jax.tree_util.keystr(path): (a, b) for (path, a), (_, b) in zip(*leaves, strict=True)}


def test_stacking_and_back_is_the_same_tree() -> None:
    """With what optax masks out: nothing of a whole group, one block of another."""
    nothing = optax.MaskedNode()
    moments = {
        "norm/scale": jnp.ones(2), "blocks/0/a": jnp.zeros(3), "blocks/1/a": jnp.ones(3), "blocks/0/b": nothing,
        "blocks/1/b": nothing, "blocks/0/c": nothing, "blocks/1/c": jnp.ones(1),
    }  # fmt: skip
    tree = (jnp.zeros((), jnp.int32), {"trained": moments})
    both = segments(ViTConfig(depth=2))
    stacked = stack(tree, both)
    shapes = {path: getattr(leaf, "shape", None) for path, leaf in stacked[1]["trained"].items()}
    assert shapes == {"norm/scale": (2,), "blocks/*/a": (2, 3), "blocks/*/b": None, "blocks/*/c": (2, 1)}
    np.testing.assert_array_equal(stacked[1]["trained"]["blocks/*/c"], [[0], [1]])
    again = unstack(stacked, both, ["blocks/0/c"])
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again, tree))


def test_a_program_of_stacked_blocks_does_not_grow_with_the_depth() -> None:
    """Optimizer and average included: that is what makes it quick to compile."""

    def operations(depth: int) -> int:
        model = vit_jax.create_model(CONFIG.replace(depth=depth))
        params = vit_jax.get_params(model)
        optimizer = training.make_optimizer(RECIPE.optimizer, training.make_schedule(RECIPE.schedule, 4), model.config)
        mesh = training.make_mesh(ONE, jax.devices()[:1])
        forward = training.Forward(model, scan=True)
        engine = training.jit_engine(forward, optimizer, RECIPE, Preprocessing(), mesh, jax.random.key(0))
        assert engine.lower is not None
        state = jax.eval_shape(lambda: training.init_state(params, optimizer, RECIPE))
        return engine.lower(state, batches(1)[0]).as_text().count("stablehlo.")

    assert operations(2) == operations(5)
