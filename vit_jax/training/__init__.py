"""Training in JAX: recipes, one compiled step, meshes. Needs the extra ``train`` (optax)."""

from typing import TYPE_CHECKING

from vit_jax.lazy import on_demand

if TYPE_CHECKING:
    from vit_jax.training.devices.engine import Engine, jit_engine, pmap_engine
    from vit_jax.training.devices.sharding import make_mesh
    from vit_jax.training.recipe.execution import MeshShape, Remat
    from vit_jax.training.recipe.recipe import Loss, Optimizer, Recipe, Schedule
    from vit_jax.training.step.forward import Forward
    from vit_jax.training.step.optimizer import make_optimizer, make_schedule
    from vit_jax.training.step.update import TrainState, init_state, make_update
else:
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "devices.engine": ("Engine", "jit_engine", "pmap_engine"),
            "step.forward": ("Forward",),
            "recipe.execution": ("MeshShape", "Remat"),
            "step.optimizer": ("make_optimizer", "make_schedule"),
            "recipe.recipe": ("Loss", "Optimizer", "Recipe", "Schedule"),
            "devices.sharding": ("make_mesh",),
            "step.update": ("TrainState", "init_state", "make_update"),
        },
    )

__all__ = [
    "Engine",
    "Forward",
    "Loss",
    "MeshShape",
    "Optimizer",
    "Recipe",
    "Remat",
    "Schedule",
    "TrainState",
    "init_state",
    "jit_engine",
    "make_mesh",
    "make_optimizer",
    "make_schedule",
    "make_update",
    "pmap_engine",
]
