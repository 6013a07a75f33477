"""An optimizer of torch.optim, or one of optax, given weights and gradients in float64."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion.containers.file_checks import first_line
from vit_parity.frameworks import jax_dtype
from vit_parity.porting.optimizer_rules import Rule, replayed
from vit_spec import VitportError

DOUBLE, _SINGLE = 2.0**-53, 2.0**-24
ROUNDINGS = 64
"""Of one step, in units in the last place of the update: more than any rule has operations."""
CONSTANTS = 4
"""Numbers of a rule that either side may hold in float32, as optax computes the rates of a schedule."""
_KINDS = {"Adam": "adam", "AdamW": "adam", "SGD": "sgd", "RMSprop": "rmsprop", "Adagrad": "adagrad",
          "NAdam": "adam", "Lion": "lion"}  # fmt: skip
Tree = Any
"""Arrays in dicts, lists or tuples."""
Trees = Sequence[Mapping[str, np.ndarray]]
"""Name → array, step by step."""


@dataclass(frozen=True)
class Ran:
    """An optimizer after its steps."""

    title: str
    params: list[dict[str, np.ndarray]]
    """Before the first step and after each."""
    rules: dict[str, Rule] | None = None
    """Of an optimizer in PyTorch whose rule is known."""
    given: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
    """The gradients that it took, after clipping."""


def run_optimizer(
    side: Any, start: Mapping[str, np.ndarray], gradients: Trees,
    rebuilt: Callable[[Mapping[str, Any]], Tree], letter: str
) -> Ran:  # fmt: skip
    """Let it take a step for each tree of gradients.

    Args:
        side: as of :func:`vit_parity.porting.optimizers.compare_optimizers`.
        start: the weights.
        gradients: of each step.
        rebuilt: from names to the user's own tree, which optax is given.
        letter: of the side, for errors.

    Raises:
        VitportError: if it is none, or fails.
    """
    return run_side(
        side, f"optimizer {letter}", "an optax transformation, or a function from name → parameter to an optimizer of "
        "torch.optim", lambda: _optax(side, start, gradients, rebuilt), lambda: _torch(side, start, gradients)
    )  # fmt: skip


def run_side(side: Any, what: str, wanted: str, optax: Callable[[], Ran], function: Callable[[], Ran]) -> Ran:
    """Run what the user gave, as what it is.

    Args:
        side: an optax transformation, or a function.
        what: what it stands for and on which side, for errors.
        wanted: what it may be, for errors.
        optax: runs it as an optax transformation.
        function: runs it as a function.

    Raises:
        VitportError: if it is neither, or fails.
    """
    try:
        if hasattr(side, "init") and hasattr(side, "update"):
            return optax()
        if callable(side):
            return function()
    except VitportError:
        raise
    except Exception as error:
        raise VitportError(f"The {what} fails ({type(error).__name__}: {first_line(error)}).") from error
    raise VitportError(f"The {what} is a {type(side).__name__}: give {wanted}.")


def _optax(
    rule: Any, start: Mapping[str, np.ndarray], gradients: Trees,
    rebuilt: Callable[[Mapping[str, Any]], Tree]
) -> Ran:  # fmt: skip
    import jax
    import jax.numpy as jnp

    with jax_dtype("float64"):
        params = rebuilt({name: jnp.asarray(array) for name, array in start.items()})
        memory = rule.init(params)
        update = jax.jit(rule.update)
        after = [dict(start)]
        for tree in gradients:
            moved, memory = update(rebuilt({name: jnp.asarray(it) for name, it in tree.items()}), memory, params)
            params = jax.tree.map(lambda p, u: p + u, params, moved)
            after.append(
                {name: np.asarray(leaf) for name, leaf in zip(start, _leaves(params, rebuilt, start), strict=True)}
            )
    return Ran("an optax transformation", after)


def _leaves(params: Tree, rebuilt: Callable[[Mapping[str, Any]], Tree], start: Mapping[str, Any]) -> list[Any]:
    """In the order of the names."""
    import jax

    order = jax.tree.leaves(rebuilt({name: at for at, name in enumerate(start)}))
    return [leaf for _, leaf in sorted(zip(order, jax.tree.leaves(params), strict=True), key=lambda it: it[0])]


def _torch(make: Any, start: Mapping[str, np.ndarray], gradients: Trees) -> Ran:
    import torch

    params = {name: torch.nn.Parameter(torch.tensor(array, dtype=torch.float64)) for name, array in start.items()}
    made = make(params)
    optimizer, *others = made if isinstance(made, tuple) else (made,)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise VitportError(
            f"The function for PyTorch returns a {type(optimizer).__name__}, not a torch.optim.Optimizer."
        )
    before, behind = [it for it in others if not hasattr(it, "step")], [it for it in others if hasattr(it, "step")]
    groups = {id(it): group for group in optimizer.param_groups for it in group["params"]}
    rates: dict[str, list[float]] = {name: [] for name in start}
    after, given = [dict(start)], []
    for tree in [*gradients, None]:
        for name, parameter in params.items():
            group = groups.get(id(parameter))
            rates[name].append(0.0 if group is None else float(group["lr"]))
            parameter.grad = None if tree is None else torch.tensor(tree[name], dtype=torch.float64)
        if tree is None:
            break
        for change in before:
            change(list(params.values()))
        given.append({name: it.grad.numpy().copy() for name, it in params.items() if it.grad is not None})
        optimizer.step()
        for it in behind:
            it.step()
        after.append({name: it.detach().numpy().copy() for name, it in params.items()})
    kind = _KINDS.get(type(optimizer).__name__)
    rules = None if kind is None else {
        name: _rule(kind, type(optimizer).__name__, groups.get(id(it)), rates[name]) for name, it in params.items()
    }  # fmt: skip
    title = f"torch.optim.{type(optimizer).__name__}"
    told = Ran(title, after, rules, given)
    known = rules is not None and all(
        all(near(after, [start, *_replays(told, rules, name, given)], name)) for name in start
    )
    return told if known else dataclasses.replace(told, rules=None)


def _rule(kind: str, name: str, group: Mapping[str, Any] | None, rates: Sequence[float]) -> Rule:
    """What the group of a parameter says; one that is in no group stays as it is."""
    if group is None:
        return Rule(kind, tuple(0.0 for _ in rates))
    one, two = group.get("betas", (0.0, group.get("alpha", 0.0)))
    coupled = name not in ("AdamW", "Lion") and not group.get("decoupled_weight_decay", False)
    return Rule(
        kind, tuple(rates),
        betas=(float(one), float(two)),
        epsilon=float(group.get("eps", 0.0)), decay=float(group["weight_decay"]), coupled=coupled,
        momentum=float(group.get("momentum", 0.0)), dampening=float(group.get("dampening", 0.0)),
        nesterov=bool(group.get("nesterov", False)), largest=bool(group.get("amsgrad", False)),
        centred=bool(group.get("centered", False)), corrected=(kind == "adam", kind == "adam"),
        momentum_decay=float(group["momentum_decay"]) if name == "NAdam" else None,
        start=float(group.get("initial_accumulator_value", 0.0)),
    )  # fmt: skip


def named_tree(tree: Tree) -> tuple[dict[str, np.ndarray], Callable[[Mapping[str, Any]], Tree]]:
    """A tree as name → array, and the way back."""
    import jax

    from vit_parity.frameworks import torch_array
    from vit_parity.porting.jax_model import JaxModel
    from vit_parity.porting.jax_tagging import named_leaf

    if hasattr(tree, "named_parameters"):
        return {name: torch_array(it).astype(np.float64) for name, it in tree.named_parameters()}, dict
    if type(tree).__module__.split(".")[0] not in ("builtins", "collections", "flax") or _is_nnx(tree):
        model = JaxModel(tree, (), {}, type(tree).__name__)
        arrays = zip(model.names, model.arrays(False, 0.0), strict=True)
        return {name: np.asarray(it, np.float64) for name, it in arrays if name is not None}, dict
    found, shape = jax.tree_util.tree_flatten_with_path(tree)
    names = [named_leaf(path) for path, _ in found]
    arrays = [leaf.detach().cpu().numpy() if hasattr(leaf, "detach") else leaf for _, leaf in found]
    named = {name: np.asarray(array, np.float64) for name, array in zip(names, arrays, strict=True)}
    return named, lambda values: jax.tree.unflatten(shape, [values[name] for name in names])


def _is_nnx(tree: Tree) -> bool:
    return "flax.nnx" in sys.modules and isinstance(tree, sys.modules["flax.nnx"].Module)


def measured(
    a: Trees,
    b: Trees,
    name: str,
    step: int,
    coarse: int = CONSTANTS,
) -> tuple[float, float, float]:
    """Distance after a step, what rounding explains of it, and the way that A went."""
    way = sum(float(np.linalg.norm(a[at + 1][name] - a[at][name])) for at in range(step))
    size = max(float(np.linalg.norm(a[at][name])) for at in range(step + 1))
    far = float(np.linalg.norm(b[step][name] - a[step][name]))
    return far, DOUBLE * ROUNDINGS * step * (size + way) + coarse * _SINGLE * way, way


def near(a: Trees, b: Trees, name: str) -> list[bool]:
    """Of each step, whether rounding explains the distance of one parameter."""
    return [far <= limit for far, limit, _ in (measured(a, b, name, at) for at in range(1, len(a)))]


def _replays(ran: Ran, rules: Mapping[str, Rule], name: str, gradients: Trees) -> list[dict[str, np.ndarray]]:
    own = [tree.get(name, np.zeros_like(ran.params[0][name])) for tree in gradients]
    return [{name: p} for p in replayed(rules[name], ran.params[0][name], own)]
