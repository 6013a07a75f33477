"""What the code between two stages may do instead: another activation function, another gate, another attention."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erf

from vit_parity.bound import relative
from vit_parity.porting.attention import between, head_count
from vit_parity.porting.findings import owner
from vit_parity.porting.rotary import spread, turned
from vit_parity.porting.stages import ROOT, Observed

if TYPE_CHECKING:
    from vit_parity.porting.compare import Side
    from vit_parity.porting.findings import Fault

Told = tuple[str, np.ndarray]
_AGREES = 1e-6
_NEAR = 4
"""Results before a stage that its code is looked for in."""


def before_a_stage(fault: Fault, side: Side, seen: Observed, y: np.ndarray, target: np.ndarray) -> Iterator[Told]:
    """What the module round a stage may compute instead of the stage's input.

    Args:
        fault: where it shows.
        side: A.
        seen: A's pass.
        y: the input that A gives.
        target: the one that B gives.
    """
    keys = list(seen.values)
    before = keys[: keys.index(fault.key)][::-1]
    near = [seen.values[key].astype(np.float64) for key in before if key[1][0] == ">"][:_NEAR]
    for x in near:
        yield from other_functions(x, y)
    yield from last_functions(seen, "", y)
    yield from _gates(near, y)
    yield from _attention(fault, side, seen, near, y, target)


def other_functions(x: np.ndarray, y: np.ndarray) -> Iterator[Told]:
    """Another activation function, if A's result is one of them."""
    if x.shape != y.shape:
        return
    values = {name: function(x) for name, function in ACTIVATIONS.items()}
    own = [name for name, value in values.items() if relative(value, y) < _AGREES]
    for name, value in values.items():
        if own and name not in own:
            yield f"uses {name} instead of {own[0]}", value


def last_functions(seen: Observed, stage: str, y: np.ndarray) -> Iterator[Told]:
    """Another activation function at the end of a module that has parts; ``""`` stands for the whole model."""
    for (part, slot), value in seen.values.items():
        inside = part.startswith(f"{stage}.") if stage else part != ROOT
        if inside and slot[0] == ">" and value.shape == y.shape and np.array_equal(value, y):
            for x in seen.inputs(part).values():
                yield from other_functions(x.astype(np.float64), y)


def _gates(near: list[np.ndarray], y: np.ndarray) -> Iterator[Told]:
    """Another function or the other half, where A multiplies a function of one by the other."""
    alike = [it for it in near if it.shape == y.shape]
    for gate, value in itertools.permutations(alike, 2):
        products = {name: function(gate) * value for name, function in ACTIVATIONS.items() if name != "no activation"}
        own = [name for name, product in products.items() if relative(product, y) < _AGREES]
        if own:
            for name, product in products.items():
                if name not in own:
                    yield f"uses {name} instead of {own[0]} in its gate", product
            yield f"leaves out {own[0]} in its gate", gate * value
            yield f"applies {own[0]} to the other half of its gate", ACTIVATIONS[own[0]](value) * gate
            yield "leaves out its gate", value
            yield "returns its gate alone", ACTIVATIONS[own[0]](gate)
            return


def _attention(
    fault: Fault, side: Side, seen: Observed, near: list[np.ndarray], y: np.ndarray, target: np.ndarray
) -> Iterator[Told]:
    """Attention written out in the module round a fault, whose parts were computed last."""
    if side.model is None or y.ndim != 3:
        return
    heads = head_count(side.model.parts(owner(fault.stage)).facts, y.shape[-1])
    counts = (heads,) if heads else tuple(it for it in range(2, 17) if y.shape[-1] % it == 0)
    joint = [it for it in near[:1] if it.shape[-1] == 3 * y.shape[-1]]
    parts = joint or [it for it in near[2::-1] if it.shape[:2] == y.shape[:2]]
    tables = _tables(seen)
    for count in counts:
        for order in itertools.permutations(parts) if len(parts) == 3 else [parts] * bool(joint):
            split = np.split(order[0], 3, -1) if joint else list(order)
            if not _heads_fit(split, y, count):
                continue
            wide = list(order) if joint else [spread(it, y.shape[-1], count) for it in split]
            found = list(between(wide, y, count, target))
            if not found and tables is not None:
                found = list(turned(split, tables, y, count))
            yield from found
            if found:
                return


def _heads_fit(parts: list[np.ndarray], y: np.ndarray, heads: int) -> bool:
    """Whether queries are as wide as the result, and keys and values hold heads of the same width."""
    head, rest = divmod(y.shape[-1], heads)
    q, k, v = parts
    fits = not rest and q.shape == y.shape and k.shape == v.shape
    return fits and k.shape[-1] % head == 0 and heads % (k.shape[-1] // head) == 0


def _tables(seen: Observed) -> tuple[np.ndarray, np.ndarray] | None:
    """Cosines and sines, (N, d) each, of a module of rotary positions."""
    for stage, kind in seen.kinds.items():
        if any(word in kind.lower() for word in ("rotary", "rope")):
            found = [seen.values.get((stage, slot)) for slot in (">0", ">1")]
            if all(it is not None and it.ndim >= 2 for it in found):
                cos, sin = (it.astype(np.float64).reshape(-1, *it.shape[-2:])[0] for it in found if it is not None)
                return cos, sin
    return None


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "GELU": lambda x: x * 0.5 * (1 + erf(x / math.sqrt(2))),
    "tanh GELU": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "Quick GELU": lambda x: x / (1 + np.exp(-1.702 * x)),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "ReLU": lambda x: np.maximum(x, 0),
    "leaky ReLU (0.01)": lambda x: np.where(x > 0, x, 0.01 * x),
    "leaky ReLU (0.2)": lambda x: np.where(x > 0, x, 0.2 * x),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "squared ReLU": lambda x: np.maximum(x, 0) ** 2,
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.logaddexp(x, 0),
    "Mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "hard swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "no activation": lambda x: x,
}
