"""The collectives of a compiled step, counted, for comparison with the predictions of ``vit_jax.training.scaling``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax import training
from vit_jax.families import make_model
from vit_jax.layers.attention import ATTENTION, set_attention
from vit_jax.params import get_params
from vit_jax.training.ahead.exchange import exchanges
from vit_jax.training.ahead.program import read_program
from vit_jax.training.scaling import Step, collectives
from vit_spec import Preprocessing


def count_bytes(hlo: str, devices: int) -> dict[str, int]:
    """Bytes that each kind of collective gives on one device, in a run of a compiled program.

    Args:
        hlo: of an optimised module.
        devices: of the program.
    """
    found: Counter[str] = Counter()
    for one in exchanges(read_program(hlo), devices):
        found[one.kind] += round(one.total)
    return dict(found)


def predicted_bytes(step: Step) -> dict[str, int]:
    """The same of the model's collectives, as the CPU backend writes them: it knows no reduce-scatter, and reduces the
    whole array on every device, of which each then takes its part."""
    found: Counter[str] = Counter()
    for one in collectives(step):
        found["all-reduce" if one.kind == "reduce-scatter" else one.kind] += round(one.total)
    return dict(found)


def compile_step(step: Step) -> str:
    """The optimised program of a step with AdamW, as the trainer compiles it for as many simulated devices."""
    recipe = training.Recipe(accumulation=step.accumulation)
    dtype = jnp.dtype(step.precision)
    model = nnx.eval_shape(lambda: make_model(step.model, rngs=nnx.Rngs(0), dtype=dtype))
    set_attention(model, ATTENTION[step.attention])
    shapes = get_params(model)
    optimizer = training.make_optimizer(recipe.optimizer, training.make_schedule(recipe.schedule, 2), step.model)
    forward = training.Forward(model, remat=step.remat)
    mesh = training.make_mesh(step.mesh, jax.devices()[: step.devices])
    engine = training.jit_engine(forward, optimizer, recipe, Preprocessing(), mesh, jax.random.key(0))
    state = jax.eval_shape(
        lambda: training.init_state(
            {path: jnp.zeros(x.shape, x.dtype) for path, x in shapes.items()}, optimizer, recipe
        )
    )
    images = (step.batch, *step.model.image_size, step.model.in_channels)
    batch = {
        "image": jax.ShapeDtypeStruct(images, np.uint8),
        "label": jax.ShapeDtypeStruct((step.batch,), np.int32),
        "index": jax.ShapeDtypeStruct((step.batch,), np.uint32),
    }
    return engine.lower(state, batch).compile().as_text() or ""


@dataclass(frozen=True)
class Exchanged:
    """Bytes that one step exchanges, by kind of collective."""

    step: Step
    predicted: dict[str, int]
    counted: dict[str, int]

    @property
    def error(self) -> float:
        """Bytes that predicted and counted are apart, kind by kind, over all that are counted."""
        kinds = self.predicted.keys() | self.counted.keys()
        apart = sum(abs(self.predicted.get(kind, 0) - self.counted.get(kind, 0)) for kind in kinds)
        return apart / sum(self.counted.values())


def compare(step: Step) -> Exchanged:
    """Compiles the step on this process's devices."""
    return Exchanged(step, predicted_bytes(step), count_bytes(compile_step(step), step.devices))
