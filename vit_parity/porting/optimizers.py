"""An optimizer of torch.optim and one of optax, step by step: which parts first, at which parameter, and why.

Both are given the same weights and the same gradients, in float64, so what parts is the optimizer alone. The rule of
the one in PyTorch is known (its ``param_groups`` say it): it is replayed in numpy with one thing changed, or two, and
what follows the other one down to rounding is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_parity.measure import ratio
from vit_parity.porting.optimizer_causes import found_causes
from vit_parity.porting.optimizer_runs import DOUBLE, ROUNDINGS, Ran, Tree, measured, named_tree, near, run_optimizer
from vit_spec import VitportError


@dataclass(frozen=True)
class OptimizerStep:
    """Both sides after one step."""

    step: int
    """Counted from 1."""
    distance: float
    """Of the parameter that is furthest apart, relative to the way that A's went so far (L2)."""
    parameter: str
    """Which that is."""
    limit: float
    """The largest that rounding explains."""

    @property
    def equal(self) -> bool:
        """Whether rounding explains it."""
        return self.distance <= self.limit


@dataclass(frozen=True)
class OptimizerFindings:
    """Two optimizers compared."""

    a: str
    b: str
    steps: tuple[OptimizerStep, ...]
    parted: tuple[str, ...]
    """Parameters that are apart in the end, in their order."""
    causes: tuple[str, ...]
    """What B does instead; each explains every step of every parameter down to rounding."""

    @property
    def equal(self) -> bool:
        """Whether rounding explains every difference."""
        return all(it.equal for it in self.steps)

    @property
    def conclusion(self) -> str:
        """The result in words."""
        first = next((it for it in self.steps if not it.equal), None)
        if first is None:
            return f"Rounding explains every difference of {len(self.steps)} steps."
        names = ", ".join(self.parted[:4]) + (f", and {len(self.parted) - 4} more" if len(self.parted) > 4 else "")
        told = f"B parts at step {first.step}, furthest at {first.parameter} ({first.distance:.1e} of its way, where "
        told += f"rounding explains {first.limit:.1e}); parameters apart: {names}"
        return f"{told}. B {', or '.join(self.causes)}." if self.causes else f"{told}. No known cause explains it."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self) | {"equal": self.equal, "conclusion": self.conclusion}

    def __str__(self) -> str:
        lines = [f"A: {self.a}", f"B: {self.b}", "step  distance  rounding  furthest"]
        lines += [f"{it.step:>4}   {it.distance:.1e}   {it.limit:.1e}  {it.parameter}" for it in self.steps]
        return "\n".join([*lines, self.conclusion])


def compare_optimizers(
    a: Any, b: Any, weights: Tree, gradients: Sequence[Tree] | None = None, *, steps: int = 8, seed: int = 0
) -> OptimizerFindings:
    """Let two optimizers take the same steps.

    >>> theirs = lambda params: torch.optim.AdamW(params.values(), 1e-3, weight_decay=0.05)
    >>> print(vitport.compare_optimizers(theirs, optax.adam(1e-3), {"w": w, "b": b}))

    Args:
        a: the reference: an optax transformation; or a function from name → ``torch.nn.Parameter`` to an optimizer of
            ``torch.optim``. It may return a tuple: the optimizer, then schedulers, which step behind it, and functions
            of the list of parameters that change gradients before it, such as clipping.
        b: what is compared with it, in the same way.
        weights: arrays in a dict, also nested; or a ``torch.nn.Module``, or an NNX module.
        gradients: such a tree for each step. By default normal numbers, from 1e-6 to 1 in size by parameter and from
            0.01 to 10 by step, so that epsilons and clipping show.
        steps: how many, if no gradients are given.
        seed: of their numbers.

    Raises:
        VitportError: if an optimizer fails, or trees do not have the same names.
    """
    start, rebuilt = named_tree(weights)
    if not start:
        raise VitportError("There are no weights to optimize: give a tree of arrays, or a model with parameters.")
    taken = _drawn(start, steps, seed) if gradients is None else [named_tree(tree)[0] for tree in gradients]
    for at, tree in enumerate(taken, 1):
        if tree.keys() != start.keys() or any(tree[name].shape != it.shape for name, it in start.items()):
            raise VitportError(f"The gradients of step {at} do not have the names and shapes of the weights.")
    if not taken:
        raise VitportError("At least one step is needed: give gradients, or steps of 1 or more.")
    first, second = (run_optimizer(side, start, taken, rebuilt, letter) for letter, side in (("A", a), ("B", b)))

    def causes() -> tuple[str, ...]:
        if first.rules is not None:
            return found_causes(first, second, taken)
        if second.rules is not None:
            return tuple(f"is the one in PyTorch, and A {cause}" for cause in found_causes(second, first, taken))
        return ()

    return findings_of(first, second, start, causes)


def findings_of(
    first: Ran, second: Ran, start: Mapping[str, np.ndarray], causes: Callable[[], tuple[str, ...]]
) -> OptimizerFindings:
    """What two runs of the same steps show; causes are sought where they part."""
    rows = [_row(at, first, second) for at in range(1, len(first.params))]
    parted = tuple(name for name in start if not all(near(first.params, second.params, name)))
    return OptimizerFindings(first.title, second.title, tuple(rows), parted, causes() if parted else ())


def _drawn(start: Mapping[str, np.ndarray], steps: int, seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    sizes = dict(zip(start, 10.0 ** -np.linspace(0, 6, len(start))[rng.permutation(len(start))], strict=True))
    scales = 10.0 ** np.tile([0.0, -2.0, 1.0, -1.0], steps)[:steps]
    return [{name: by * size * rng.standard_normal(start[name].shape) for name, size in sizes.items()} for by in scales]


def _row(step: int, a: Ran, b: Ran) -> OptimizerStep:
    worst = OptimizerStep(step, 0.0, next(iter(a.params[0])), 0.0)
    for name in a.params[0]:
        far, limit, way = measured(a.params, b.params, name, step)
        told = OptimizerStep(step, ratio(far, way), name, ratio(limit, way))
        if (not told.equal, told.distance) > (not worst.equal, worst.distance):
            worst = told
    return worst if worst.limit else dataclasses.replace(worst, limit=ROUNDINGS * step * DOUBLE)
