"""The collectives of a compiled step, counted, for comparison with the predictions of ``vit_jax.training.scaling``."""

from __future__ import annotations

import math
import re
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
from vit_jax.training.scaling import Step, collectives
from vit_spec import Preprocessing

_WORDS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_COMPUTATION = re.compile(r"^(ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_WHILE = re.compile(r"\bwhile\(.*body=%?(?P<body>[\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALL = re.compile(r"\bcall\(.*to_apply=%?(?P<body>[\w.-]+)")
_COLLECTIVE = re.compile(
    r"= (?P<shape>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?P<start>-start)?\("
)
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\]")


def count_bytes(hlo: str) -> dict[str, int]:
    """Bytes of the arrays that each kind of collective gives on one device, in a run of the compiled program.

    The bodies of loops count as often as they run. Of an asynchronous pair the start counts, and of what a gather's
    start gives (operand and result) the result.

    Args:
        hlo: of an optimised module.
    """
    found: dict[str, Counter[str]] = {}
    inner: dict[str, list[tuple[str, int]]] = {}
    at = entry = ""
    for line in hlo.splitlines():
        if match := _COMPUTATION.match(line):
            at = match["name"]
            entry = at if match[1] else entry
            found[at], inner[at] = Counter(), []
        elif match := _COLLECTIVE.search(line):
            found[at][match["kind"]] += _bytes(match["shape"], match["kind"], match["start"] is not None)
        elif match := _WHILE.search(line):
            trips = _TRIPS.search(line)
            inner[at].append((match["body"], int(trips[1]) if trips else 1))
        elif match := _CALL.search(line):
            inner[at].append((match["body"], 1))

    def total(name: str) -> Counter[str]:
        counted = Counter(found[name])
        for body, times in inner[name]:
            for kind, size in total(body).items():
                counted[kind] += times * size
        return counted

    return dict(total(entry))


def _bytes(shape: str, kind: str, start: bool) -> int:
    arrays = [
        _WORDS[word] * math.prod(map(int, filter(None, sizes.split(",")))) for word, sizes in _ARRAY.findall(shape)
    ]
    if start and kind in ("all-gather", "collective-permute"):
        arrays = arrays[len(arrays) // 2 :]
    return sum(arrays)


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
    assert engine.lower is not None
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
    return Exchanged(step, predicted_bytes(step), count_bytes(compile_step(step)))
