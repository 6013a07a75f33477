"""How far rounding alone may take a run from the exact result.

Rounding a number once moves it by at most ``u`` of itself, the unit roundoff of the dtype. How much that matters for an
activation is its condition, and it is measured: the float64 replay runs again with every weight, input and
intermediate result moved by a random share of at most ``u``, and ``s`` is how far, in relative L2 norm, the activation
moves. That includes the growth with depth. A sum of ``n`` products is rounded ``n`` times in float32 (16-bit dtypes are
summed in float32 too), which with random signs adds ``sqrt(n)`` roundoffs of float32 (Higham & Mary 2019, theorem 3.1).
Hence

    bound = c · s · (1 + sqrt(n) · u32 / u),   u32 = max(u, 2**-24) for 16-bit dtypes, else u,

with n the longest sum of the model. c = 4 is a margin: over all options of the models, 12 blocks, both frameworks, the
largest quotient of the error to the bound with c = 1 is 0.5 in float32, 1.4 in bfloat16, 1.7 in float16
(tests/vit_parity/test_bound.py).

Without a replay the condition is not known, and the error is taken to grow by the same amount in every stage
(embedding, blocks, head): s = u · stages for two captures without weights (:func:`bounds_without_weights`, relative L2
norm); 8 u sqrt(n) (k + 2) after k blocks for certificates (:func:`bound_by_depth`), which state the largest difference
over the largest value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from vit_parity.measure import relative
from vit_parity.pieces import Blur
from vit_parity.points import stage_of, stages
from vit_parity.replay import ReplayedModel, StageByStage, replay_each
from vit_parity.ulp import roundoff
from vit_spec import Config, Parameter, Stage, longest_sum, parameters

MARGIN = 4.0
BY_DEPTH = "8 u sqrt(n) (k + 2): u unit roundoff, n longest sum in a layer, k blocks before; of the largest value"
""":func:`bound_by_depth` in words."""
_MARGIN_BY_DEPTH = 8.0
_FLOAT32 = 2.0**-24


def growth(n: int, u: float) -> float:
    """``1 + sqrt(n) * u32 / u``: the roundoff of storing a number, and those of summing ``n`` products."""
    return 1.0 + math.sqrt(n) * min(u, _FLOAT32) / u


def bounds(
    model: ReplayedModel,
    dtype: np.dtype,
    *,
    exact: Mapping[str, np.ndarray],
    known: Mapping[str, np.ndarray] | None = None,
    stage: str | None = None,
) -> dict[str, float]:
    """Bound on the relative L2 error of each activation of a run in ``dtype``.

    Args:
        model: the model.
        dtype: of the run.
        exact: the unperturbed replay.
        known: the activations that ``exact`` was replayed from. With a run's own, the bounds are on the error of each
            layer by itself instead of the accumulated one.
        stage: only one part of the model.
    """
    found: dict[str, float] = {}
    factor, least = bound_factor(model, dtype), least_bound(model, dtype)

    def seen(name: str, moved: np.ndarray) -> None:
        found[name] = max(factor * relative(moved, exact[name]), least)

    replay_each(_blurred(model, dtype, stage), known or {}, seen, stage)
    return found


class GrowingBounds:
    """:func:`bounds` on the accumulated error, a stage at a time.

    Args:
        model: the model.
        dtype: of the run.
    """

    def __init__(self, model: ReplayedModel, dtype: np.dtype) -> None:
        self._replay = StageByStage(_blurred(model, dtype, None))
        self._factor, self._least = bound_factor(model, dtype), least_bound(model, dtype)

    def of(self, stage: str, exact: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Of the next stage; ``exact`` has at least one of its activations, those that it lacks have no bound."""
        found: dict[str, float] = {}

        def seen(name: str, moved: np.ndarray) -> None:
            if name in exact:
                found[name] = max(self._factor * relative(moved, exact[name]), self._least)

        self._replay.compute(stage, seen)
        return found


def least_bound(model: ReplayedModel, dtype: np.dtype) -> float:
    """What every bound on a run of the model is at least."""
    # A share least / coarse of all numbers lies so close to a midpoint that it may round the other way, by 2 coarse.
    least = bound_factor(model, dtype) * roundoff(dtype) / 2
    return max(least, 2 * math.sqrt(least * model.coarse))


def bound_factor(model: ReplayedModel, dtype: np.dtype) -> float:
    """The bound over the effect of rounding each number once."""
    return MARGIN * growth(longest_sum(model.config), roundoff(dtype))


def _blurred(model: ReplayedModel, dtype: np.dtype, stage: str | None) -> ReplayedModel:
    """The model with every number moved; of the weights only those that the stage uses."""
    blur, places = Blur(roundoff(dtype)), dict[str, int]()
    for name in model.params:
        if stage is None or belongs(name, stage, model.config):
            places[name] = blur.reserve(model.params[name].size)
    changed = model.with_params(lambda name, x: blur.at(places[name], x) if name in places else x)
    return dataclasses.replace(changed, blur=blur, images=blur(model.images.astype(np.float64)))


def bounds_without_weights(names: Mapping[str, np.ndarray], dtype: np.dtype) -> dict[str, float]:
    """Bounds from activations alone: ``c · u · (1 + sqrt(n) · u32 / u) · stages``."""
    u = roundoff(dtype)
    n = max(array.shape[-1] for array in names.values())
    stages = list(dict.fromkeys(stage_of(name) for name in names))
    return {name: MARGIN * growth(n, u) * u * (1 + stages.index(stage_of(name))) for name in names}


def bound_by_depth(config: Config, dtype: np.dtype, blocks: int) -> float:
    """Bound on the largest difference over the largest value, after so many blocks of a run in ``dtype``.

    It grows as a random walk over the longest sum of a layer, and linearly with depth: each block adds errors of its
    own to those of its input.
    """
    return _MARGIN_BY_DEPTH * roundoff(dtype) * math.sqrt(longest_sum(config)) * (blocks + 2)


def belongs(parameter: str, stage: str, config: Config) -> bool:
    """Whether a stage (:func:`vit_parity.points.stages`) uses a parameter.

    A hypothesis may change the config so that it no longer has the parameter. The parameter then belongs to the stage
    of its layer, or to the last stage if the config has no such layer either.
    """
    own = _stages_by_name(config)
    return own.get(parameter, own.get(parameter.rpartition(".")[0], stages(config)[-1])) == stage


@lru_cache(maxsize=64)
def _stages_by_name(config: Config) -> Mapping[str, str]:
    """Parameters, and the layers that hold them → stage."""
    order = stages(config)

    def stage(it: Parameter) -> str:
        if it.stage is Stage.EMBED:
            return order[0]
        if it.stage is Stage.MERGE:  # computed with the block that follows
            return order[it.layer + 1]
        return it.block or order[-1]

    found = {it.name: stage(it) for it in parameters(config)}
    return {name.rpartition(".")[0]: stage for name, stage in found.items()} | found
