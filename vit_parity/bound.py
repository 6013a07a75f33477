"""Bounds on the error that rounding alone causes.

Rounding a number changes it by a relative error of at most ``u``, the unit roundoff of the dtype. How strongly an
activation reacts is measured: the float64 replay runs again with every weight, input and intermediate result perturbed
by a random relative error of at most ``u``; ``s`` is the relative L2 distance by which the activation moves. It grows
with depth by itself. A sum of ``n`` products is rounded ``n`` times in float32, for 16-bit dtypes too. With random
signs that adds ``sqrt(n)`` roundoffs of float32 (Higham & Mary 2019, theorem 3.1). Hence

    bound = c · s · (1 + sqrt(n) · u32 / u),   u32 = max(u, 2**-24) for 16-bit dtypes, else u,

with n the length of the model's longest sum. c = 4 is a margin: over all options of the models, 12 blocks, both
frameworks, the largest ratio of the error to the bound with c = 1 is 0.5 in float32, 1.4 in bfloat16, 1.7 in float16
(tests/vit_parity/test_bound.py). Without weights there is no replay; ``s`` is then estimated as ``u`` times the number
of stages (embedding, blocks, head) up to the activation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from vit_parity.points import stage_of, stages
from vit_parity.replay import ReplayedModel, replay
from vit_parity.ulp import roundoff
from vit_spec import Stage, ViTConfig, longest_sum, parameters

MARGIN = 4.0
_FLOAT32 = 2.0**-24


def growth(n: int, u: float) -> float:
    """``1 + sqrt(n) * u32 / u``: roundoffs of a sum of ``n`` products, the one of storing it included."""
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
    u = roundoff(dtype)
    rng = np.random.default_rng(0)

    def blur(x: np.ndarray) -> np.ndarray:
        return x * (1.0 + rng.uniform(-u, u, x.shape))

    own = model.params.items()
    needed = {name: array for name, array in own if stage is None or belongs(name, stage, model.config)}
    blurred = dataclasses.replace(
        model, blur=blur, params=dict(model.params) | {name: blur(array) for name, array in needed.items()},
        images=blur(model.images.astype(np.float64)),
    )  # fmt: skip
    moved = replay(blurred, known or {}, stage)
    factor = MARGIN * growth(longest_sum(model.config), u)
    least = factor * u / 2
    # A share least / coarse of all numbers lies so close to a midpoint that it may round the other way, by 2 coarse.
    least = max(least, 2 * math.sqrt(least * model.coarse))
    return {name: max(factor * relative(moved[name], exact[name]), least) for name in moved}


def bounds_without_weights(names: Mapping[str, np.ndarray], dtype: np.dtype) -> dict[str, float]:
    """Bounds from activations alone: ``c · u · (1 + sqrt(n) · u32 / u) · stages``."""
    u = roundoff(dtype)
    n = max(array.shape[-1] for array in names.values())
    stages = list(dict.fromkeys(stage_of(name) for name in names))
    return {name: MARGIN * growth(n, u) * u * (1 + stages.index(stage_of(name))) for name in names}


def relative(actual: np.ndarray, reference: np.ndarray) -> float:
    """L2 norm of the difference over that of the reference, in float64; infinite if only the reference is zero."""
    difference = float(np.linalg.norm((actual.astype(np.float64) - reference).ravel()))
    norm = float(np.linalg.norm(reference.astype(np.float64).ravel()))
    if norm == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / norm


def belongs(parameter: str, stage: str, config: ViTConfig) -> bool:
    """Whether a stage (:func:`vit_parity.points.stages`) uses a parameter.

    A hypothesis may change the config so that it no longer has the parameter. The parameter then belongs to the stage
    of its layer, or to the last stage if the config has no such layer either.
    """
    own = _stages_by_name(config)
    return own.get(parameter, own.get(parameter.rpartition(".")[0], stages(config)[-1])) == stage


@lru_cache(maxsize=64)
def _stages_by_name(config: ViTConfig) -> Mapping[str, str]:
    """Parameters, and the layers that hold them → stage."""
    first, *_, last = stages(config)
    found = {it.name: it.block or (first if it.stage is Stage.EMBED else last) for it in parameters(config)}
    return {name.rpartition(".")[0]: stage for name, stage in found.items()} | found
