"""How far rounding alone may take a run from the truth.

Rounding each number once moves it by at most ``u`` of itself, the unit roundoff of the dtype. How much that matters at
some activation is its condition, and it is measured: the float64 replay runs again with every weight, input and
intermediate result moved by a random share of at most ``u``, and ``s`` is how far, in relative L2 norm, the activation
moves. That grows with depth by itself. A sum of ``n`` products is rounded ``n`` times in float32 (16-bit dtypes are
summed in float32 too), which with random signs adds ``sqrt(n)`` roundoffs of float32 (Higham & Mary 2019, theorem 3.1).
Hence

    bound = c · s · (1 + sqrt(n) · u32 / u),   u32 = max(u, 2**-24) for 16-bit dtypes and u else,

with n the longest sum of the model. c = 4 is a margin: over all options of the models, 12 blocks, both frameworks, the
largest quotient of error to the bound with c = 1 is 0.5 in float32, 1.4 in bfloat16, 1.7 in float16
(tests/vit_parity/test_bound.py). Without weights there is no replay; then s is taken to be u times the number of
stages (embedding, blocks, head) up to the activation: u · sqrt(n) · depth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from vit_parity.points import stage_of
from vit_parity.replay import ReplayedModel, replay
from vit_parity.ulp import roundoff
from vit_spec import ViTConfig

MARGIN = 4.0
_FLOAT32 = 2.0**-24


def longest_sum(config: ViTConfig) -> int:
    """Products in the longest inner product of the model."""
    return max(config.hidden_dim, config.pooled_dim, config.num_tokens, config.in_channels * config.patch_size**2)


def growth(n: int, u: float) -> float:
    """``1 + sqrt(n) * u32 / u``: roundoffs that a sum of ``n`` products adds to the one of storing it."""
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
        exact: what the replay gives undisturbed.
        known: the activations that ``exact`` was replayed from; with a run's own, the bounds are on each layer's own
            error instead of the accumulated one.
        stage: one part of the model alone.
    """
    u = roundoff(dtype)
    rng = np.random.default_rng(0)

    def blur(x: np.ndarray) -> np.ndarray:
        return x * (1.0 + rng.uniform(-u, u, x.shape))

    needed = {name: array for name, array in model.params.items() if stage is None or belongs(name, stage)}
    blurred = dataclasses.replace(
        model, blur=blur, params=dict(model.params) | {name: blur(array) for name, array in needed.items()},
        images=blur(model.images.astype(np.float64)),
    )  # fmt: skip
    moved = replay(blurred, known or {}, stage)
    factor = MARGIN * growth(longest_sum(model.config), u)
    least = factor * u / 2
    # A share least / coarse of all numbers is near enough to a midpoint to be rounded the other way, by 2 coarse each.
    least = max(least, 2 * math.sqrt(least * model.coarse))
    return {name: max(factor * relative(moved[name], exact[name]), least) for name in moved}


def bounds_without_weights(names: Mapping[str, np.ndarray], dtype: np.dtype) -> dict[str, float]:
    """The same where nothing is known but activations: ``c · u · (1 + sqrt(n) · u32 / u) · stages``."""
    u = roundoff(dtype)
    n = max(array.shape[-1] for array in names.values())
    stages = list(dict.fromkeys(stage_of(name) for name in names))
    return {name: MARGIN * growth(n, u) * u * (1 + stages.index(stage_of(name))) for name in names}


def relative(actual: np.ndarray, reference: np.ndarray) -> float:
    """L2 norm of the difference over that of the reference, in float64; infinite where only the reference is zero."""
    difference = float(np.linalg.norm((actual.astype(np.float64) - reference).ravel()))
    norm = float(np.linalg.norm(reference.astype(np.float64).ravel()))
    if norm == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / norm


def belongs(parameter: str, stage: str) -> bool:
    """Whether a parameter is used in a stage."""
    if parameter.startswith("blocks."):
        return parameter.startswith(f"{stage}.")
    first = parameter.partition(".")[0]
    early = first in ("patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token", "norm_pre")
    return stage == ("embed" if early else "head")
