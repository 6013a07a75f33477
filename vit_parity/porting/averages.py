"""Moving averages of parameters (EMA) of both frameworks on the same weights: which step parts first, and why.

An average moves by a share of its distance from the parameters, ``ema + (1 - d) (p - ema)``. That share is measured at
each step, on both sides, and tells the rule: a constant decay, one that is warmed up, or one that is corrected for its
start at 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vit_parity.frameworks import jax_dtype
from vit_parity.porting.optimizer_runs import Ran, Tree, named_tree, run_side
from vit_parity.porting.optimizers import OptimizerFindings, findings_of
from vit_spec import VitportError

_CLOSE = 1e-6
"""A decay may be held in float32: largest distance of a measured decay from that of a rule."""
_SAME = 1e-5
"""Largest share of its way that a mean may be off the line from the last one to the parameters."""


def compare_ema(a: Any, b: Any, weights: Tree, *, steps: int = 8, seed: int = 0) -> OptimizerFindings:
    """Let two moving averages follow the same weights.

    >>> theirs = lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    >>> print(vitport.compare_ema(theirs, optax.ema(0.999), {"w": w, "b": b}))

    Args:
        a: the reference: an optax transformation, as ``optax.ema``; a function of (average, parameter, number of
            averages so far), as ``torch.optim.swa_utils.get_ema_avg_fn`` makes it, or one with
            ``optax.incremental_update``; or a function from a ``torch.nn.Module`` to what averages it:
            ``AveragedModel``, or ``ModelEmaV3`` of timm.
        b: what is compared with it, in the same way.
        weights: arrays in a dict, also nested; or a model.
        steps: how many. The weights walk at random.
        seed: of their way.

    Raises:
        VitportError: if a side fails, or is none of these.
    """
    start, rebuilt = named_tree(weights)
    if not start or steps < 1:
        raise VitportError("compare_ema needs weights, and at least one step.")
    rng = np.random.default_rng(seed)
    walk = [start]
    for _ in range(steps):
        walk.append({name: it + 0.1 * rng.standard_normal(it.shape) for name, it in walk[-1].items()})
    first, second = (_run(side, walk, rebuilt, letter) for letter, side in (("A", a), ("B", b)))
    return findings_of(first, second, start, lambda: tuple(_causes(first.params, second.params, walk)))


def _causes(a: Sequence[Mapping[str, np.ndarray]], b: Sequence[Mapping[str, np.ndarray]],
            walk: Sequence[Mapping[str, np.ndarray]]) -> Iterator[str]:  # fmt: skip
    told_a, told_b = _rule(a, walk), _rule(b, walk)
    if told_b and told_a != told_b:
        yield f"{told_b}, and A {told_a}" if told_a else told_b


def _rule(averages: Sequence[Mapping[str, np.ndarray]], walk: Sequence[Mapping[str, np.ndarray]]) -> str:
    """What an average does, in words that follow its name; empty if it is none of what is known."""
    x, p = ([np.concatenate([it.ravel() for it in tree.values()]) for tree in trees] for trees in (averages, walk))
    for late in (0, 1):
        moved = [(x[at] - x[at - 1], p[at - late] - x[at - 1]) for at in range(1, len(x))]
        moved = moved[late:]  # before the first step the two may be the same
        shares = [float(step @ way) / max(float(way @ way), 1e-300) for step, way in moved]
        off = [np.linalg.norm(step - share * way) for share, (step, way) in zip(shares, moved, strict=True)]
        if any(it > _SAME * max(float(np.linalg.norm(way)), 1e-30) for it, (_, way) in zip(off, moved, strict=True)):
            continue
        known = _words([1 - share for share in shares], from_zero=not x[0].any())
        return known + (", of the parameters before each step" if late and known else "")
    return ""


def _words(decays: Sequence[float], *, from_zero: bool) -> str:
    """A rule by the decays that were measured."""
    last = float(f"{decays[-1]:.6g}")
    steps = range(1, len(decays) + 1)

    def fits(rule: Callable[[int], float], since: int = 0) -> bool:
        return all(abs(rule(step) - it) <= _CLOSE for step, it in list(zip(steps, decays, strict=True))[since:])

    second = decays[1] if len(decays) > 1 else 0.0
    solved = float(f"{second / (1 - second):.6g}") if 0 < second < 0.5 else 0.0
    if solved and solved < 1 and fits(lambda t: solved * (1 - solved ** (t - 1)) / (1 - solved**t)):
        return f"averages with decay {solved:g}, corrected for its start at 0"
    if fits(lambda _: last):
        return f"averages with decay {last:g}" + (", from 0, without a correction" if from_zero else "")
    if fits(lambda _: last, 1) and abs(decays[0]) <= _CLOSE:
        return f"copies the parameters in the first step, and averages with decay {last:g}"
    if fits(lambda t: (t - 1) / t):
        return "takes the plain mean of all steps (SWA)"
    for shift in (-1, 0, 1):
        if fits(lambda t, by=shift: min(last, (1 + t + by) / (10 + t + by)) if t + by >= 0 else 0.0):
            capped = abs(last - (1 + steps[-1] + shift) / (10 + steps[-1] + shift)) > _CLOSE
            return "warms its decay up by (1 + t) / (10 + t)" + (f", up to {last:g}" if capped else "")
        for power in (2 / 3, 3 / 4, 1.0):
            if fits(lambda t, by=shift, power=power: min(last, max(0.0, 1 - (1 + max(t + by, 0)) ** -power))):
                capped = abs(last - 1 + (1 + steps[-1] + shift) ** -power) > _CLOSE
                return f"warms its decay up by 1 - (1 + t) ** -{power:.4g}" + (f", up to {last:g}" if capped else "")
    return f"averages with decays that change from {decays[0]:.4g} to {last:g}"


def _run(side: Any, walk: Sequence[Mapping[str, np.ndarray]], rebuilt: Callable[[Mapping[str, Any]], Tree],
         letter: str) -> Ran:  # fmt: skip
    return run_side(
        side, f"average {letter}", "an optax transformation, a function of (average, parameter, number), or a function "
        "from a torch.nn.Module to what averages it", lambda: _optax(side, walk, rebuilt),
        lambda: _called(side, walk, letter)
    )  # fmt: skip


def _optax(rule: Any, walk: Sequence[Mapping[str, np.ndarray]], rebuilt: Callable[[Mapping[str, Any]], Tree]) -> Ran:
    import jax
    import jax.numpy as jnp

    with jax_dtype("float64"):
        trees = [rebuilt({name: jnp.asarray(it) for name, it in params.items()}) for params in walk]
        memory = rule.init(trees[0])
        after = [{name: np.zeros_like(it) for name, it in walk[0].items()}]
        for tree in trees[1:]:
            average, memory = rule.update(tree, memory, tree)
            order = jax.tree.leaves(rebuilt({name: at for at, name in enumerate(walk[0])}))
            leaves = dict(zip(order, jax.tree.leaves(average), strict=True))
            after.append({name: np.asarray(leaves[at]) for at, name in enumerate(walk[0])})
    return Ran("an optax transformation", after)


def _called(side: Any, walk: Sequence[Mapping[str, np.ndarray]], letter: str) -> Ran:
    """A function of one average and one parameter, or one from a module to what averages it."""
    count = sum(it.default is it.empty for it in inspect.signature(side).parameters.values())
    if count == 1:
        return _module(side, walk, letter)
    torch_like = "torch" in str(getattr(side, "__module__", ""))
    after = [dict(walk[0])]
    with jax_dtype("float64"):
        for at, params in enumerate(walk[1:]):
            after.append({name: _one(side, after[-1][name], p, at, torch_like) for name, p in params.items()})
    return Ran(getattr(side, "__qualname__", type(side).__name__).replace("<locals>.", ""), after)


def _one(side: Any, average: np.ndarray, p: np.ndarray, number: int, torch_like: bool) -> np.ndarray:
    if torch_like:
        import torch

        return np.asarray(side(torch.tensor(average), torch.tensor(p), number).numpy())
    import jax.numpy as jnp

    found = side(jnp.asarray(average), jnp.asarray(p), number)
    return found.detach().numpy() if hasattr(found, "detach") else np.asarray(found)


def _module(make: Any, walk: Sequence[Mapping[str, np.ndarray]], letter: str) -> Ran:
    import torch

    model = torch.nn.Module()
    names = {name: f"p{at}" for at, name in enumerate(walk[0])}
    for name, it in names.items():
        model.register_parameter(it, torch.nn.Parameter(torch.tensor(walk[0][name], dtype=torch.float64)))
    made = make(model)
    update = getattr(made, "update_parameters", None) or getattr(made, "update", None)
    if update is None or not hasattr(made, "module"):
        raise VitportError(
            f"The function of the average {letter} returns a {type(made).__name__}: it must return what has a module, "
            "and update_parameters or update, as AveragedModel and ModelEmaV3."
        )

    def now() -> dict[str, np.ndarray]:
        tensors = dict(made.module.named_parameters())
        return {name: tensors[it].detach().numpy().copy() for name, it in names.items()}

    after = [now()]
    for params in walk[1:]:
        for name, it in names.items():
            getattr(model, it).data = torch.tensor(params[name], dtype=torch.float64)
        update(model)
        after.append(now())
    return Ran(type(made).__name__, after)
