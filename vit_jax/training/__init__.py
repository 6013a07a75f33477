"""Training in JAX: recipes, one compiled step, meshes. Needs the extra ``train`` (optax)."""

from typing import TYPE_CHECKING

from vit_jax.lazy import on_demand

if TYPE_CHECKING:
    from vit_jax.training.engine import Engine, jit_engine, pmap_engine
    from vit_jax.training.forward import Forward, Inference, Remat
    from vit_jax.training.optimizer import make_optimizer, make_schedule
    from vit_jax.training.recipe import Loss, Optimizer, Recipe, Schedule
    from vit_jax.training.sharding import MeshShape, make_mesh
    from vit_jax.training.slices import sliced
    from vit_jax.training.spread import Spread, offer_cores
    from vit_jax.training.step import TrainState, init_state, make_update
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "engine": ("Engine", "jit_engine", "pmap_engine"),
            "forward": ("Forward", "Inference", "Remat"),
            "optimizer": ("make_optimizer", "make_schedule"),
            "recipe": ("Loss", "Optimizer", "Recipe", "Schedule"),
            "sharding": ("MeshShape", "make_mesh"),
            "slices": ("sliced",),
            "spread": ("Spread", "offer_cores"),
            "step": ("TrainState", "init_state", "make_update"),
        },
    )

__all__ = [
    "Engine",
    "Forward",
    "Inference",
    "Loss",
    "MeshShape",
    "Optimizer",
    "Recipe",
    "Remat",
    "Schedule",
    "Spread",
    "TrainState",
    "init_state",
    "jit_engine",
    "make_mesh",
    "make_optimizer",
    "make_schedule",
    "make_update",
    "offer_cores",
    "pmap_engine",
    "sliced",
]
