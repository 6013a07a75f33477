"""Operations of a step with frozen parameters. Oracle: the products in the program that XLA compiles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from tests.vit_jax.training.ahead.test_program import all_flops
from vit_jax.families import make_model
from vit_jax.params import get_params
from vit_jax.training.ahead.program import read_program
from vit_jax.training.recipe.recipe import Loss, Optimizer, Recipe, Schedule
from vit_jax.training.step.cost import step_flops
from vit_jax.training.step.forward import Forward
from vit_jax.training.step.optimizer import make_optimizer, make_schedule
from vit_jax.training.step.update import init_state, make_update
from vit_spec import Config, ViTConfig, forward_flops, get_model

nnx = pytest.importorskip("flax.nnx")
VIT = ViTConfig(image_size=(16, 24), patch_size=4, num_classes=5, embed_dim=24, depth=3, num_heads=2, mlp_hidden_dim=40)
SWIN = get_model("swin_tiny_patch4_window7_224").config.replace(
    image_size=(32, 64), patch_size=4, num_classes=5, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_sizes=4
)
BATCH = 3


def _compiled_flops(config: Config, frozen: tuple[str, ...]) -> float:
    recipe = Recipe(Optimizer("adamw", frozen=frozen), Schedule("constant", peak=1e-3), Loss())
    abstract = nnx.eval_shape(lambda: make_model(config, rngs=nnx.Rngs(0)))
    optimizer = make_optimizer(recipe.optimizer, make_schedule(recipe.schedule, 10), config)
    update = make_update(Forward(abstract, remat="none"), optimizer, recipe)
    shapes = {path: jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for path, leaf in get_params(abstract).items()}
    state = jax.eval_shape(lambda params: init_state(params, optimizer, recipe), shapes)
    rows = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    batch = {
        "image": jax.ShapeDtypeStruct((BATCH, *config.image_size, 3), jnp.float32), "label": rows, "index": rows,
        "target": jax.ShapeDtypeStruct((BATCH, 5), jnp.float32), "weight": jax.ShapeDtypeStruct((BATCH,), jnp.float32),
    }  # fmt: skip
    lowered = jax.jit(update).lower(state, batch, jax.eval_shape(lambda: jax.random.key(0)))
    return all_flops(read_program(lowered.compile().as_text()))


CASES = {
    "the backbone": (VIT, ("backbone",)),
    "up to a block": (VIT, ("patch_embed", "pos_embed", "cls_token", "blocks/0")),
    "all kernels of the blocks": (VIT, ("patch_embed", "pos_embed", "cls_token", "blocks/*/kernel")),
    "all but a bias in the middle": (VIT, ("patch_embed", "pos_embed", "cls_token", "norm", "head", "blocks/0",
                                           "blocks/1/[an]*", "blocks/1/mlp/fc2", "blocks/1/mlp/fc1/kernel",
                                           "blocks/2")),
    "a Swin Transformer's backbone": (SWIN, ("backbone",)),
    "a Swin Transformer's first stage": (SWIN, ("patch_embed", "layers/0", "layers/1/downsample")),
}  # fmt: skip


@pytest.mark.parametrize("what", list(CASES))
def test_a_step_has_the_operations_of_its_compiled_program(what) -> None:
    config, frozen = CASES[what]
    found = step_flops(config, BATCH, frozen)
    assert found == pytest.approx(_compiled_flops(config, frozen), rel=1e-6)
    assert found < 3 * forward_flops(config) * BATCH


def test_nothing_frozen_is_three_forward_passes() -> None:
    """But for the gradient of the images, which the convention counts and no program has."""
    assert step_flops(VIT, BATCH) == 3 * forward_flops(VIT) * BATCH
    first = 2 * 24 * 24 * 3 * 16
    assert step_flops(VIT, BATCH) - _compiled_flops(VIT, ()) == first * BATCH
