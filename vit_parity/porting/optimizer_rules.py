"""The rules of common optimizers in numpy, and what may be otherwise in another's hands.

A rule is that of ``torch.optim`` unless a field says else: Adam and AdamW (Kingma & Ba 2015, Loshchilov & Hutter 2019),
NAdam (Dozat 2016), SGD with momentum, RMSprop, Adagrad; or that of Lion (Chen et al. 2023). Each hypothesis changes a
few fields; it is tried by replaying all steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Steps = Sequence[dict[str, np.ndarray]]
"""Of each step, name → array."""


@dataclass(frozen=True)
class Rule:
    """How one parameter is updated."""

    kind: str
    """``adam``, ``sgd``, ``rmsprop``, ``adagrad`` or ``lion``."""
    rates: tuple[float, ...]
    """Learning rate of each step, and of one step more."""
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    decay: float = 0.0
    """Weight decay."""
    coupled: bool = True
    """Whether it is added to the gradient."""
    by_rate: bool = True
    """Whether decoupled decay is multiplied by the learning rate."""
    late: bool = False
    """Whether weights decay after they are updated."""
    momentum: float = 0.0
    dampening: float = 0.0
    damped_first: bool = False
    nesterov: bool = False
    carried_rate: bool = False
    """Whether momentum collects updates, not gradients."""
    inside: bool = False
    """Whether epsilon is inside the root."""
    early: bool = False
    """Whether epsilon is added before the second moment is corrected."""
    corrected: tuple[bool, bool] = (True, True)
    """Whether the moments are corrected for their start at 0."""
    largest: bool = False
    """AMSGrad: the largest second moment so far."""
    centred: bool = False
    momentum_decay: float | None = None
    """Of NAdam: how fast beta1 rises from half its size."""
    signed: bool = True
    """Lion: whether the sign of the mean is taken."""
    early_momentum: bool = False
    """Lion: whether its momentum takes the gradient before the mean is made of it."""
    start: float = 0.0
    """Of the sum of squares."""
    shift: int = 0
    """Steps by which the schedule is ahead."""

    def rate(self, step: int) -> float:
        """Of the step, counted from 0."""
        return self.rates[min(max(step + self.shift, 0), len(self.rates) - 1)]


def replayed(rule: Rule, start: np.ndarray, gradients: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The parameter after each step, in float64."""
    p = start.astype(np.float64)
    state: dict[str, Any] = {"m": np.zeros_like(p), "v": np.full_like(p, rule.start), "top": np.zeros_like(p)}
    for step, gradient in enumerate(gradients):
        rate = rule.rate(step)
        g = gradient.astype(np.float64)
        if rule.coupled:
            g = g + rule.decay * p
        update = rate * _direction(rule, g, step, rate, state)
        shrunk = 1.0 if rule.coupled else 1 - rule.decay * (rate if rule.by_rate else 1.0)
        p = (p - update) * shrunk if rule.late else p * shrunk - update
        yield p


def _direction(rule: Rule, g: np.ndarray, step: int, rate: float, state: dict[str, Any]) -> np.ndarray:
    if rule.kind == "adam":
        one, two = rule.betas
        state["m"] = one * state["m"] + (1 - one) * g
        state["v"] = two * state["v"] + (1 - two) * g**2
        state["top"] = np.maximum(state["top"], state["v"])
        first, second = (1 - beta ** (step + 1) if on else 1.0
                         for beta, on in zip(rule.betas, rule.corrected, strict=True))  # fmt: skip
        m = state["m"] / first
        if rule.momentum_decay is not None:
            now, following = (one * (1 - 0.5 * 0.96 ** ((step + at) * rule.momentum_decay)) for at in (1, 2))
            state["product"] = state.get("product", 1.0) * now
            m = following * state["m"] / (1 - state["product"] * following) + (1 - now) * g / (1 - state["product"])
        elif rule.nesterov:
            m = one * state["m"] / (1 - one ** (step + 2)) + (1 - one) * g / first
        return m / _root(rule, state["top"] if rule.largest else state["v"], second)
    if rule.kind == "lion":
        one, two = rule.betas
        after = two * state["m"] + (1 - two) * g
        mean = one * (after if rule.early_momentum else state["m"]) + (1 - one) * g
        state["m"] = after
        return np.sign(mean) if rule.signed else mean
    if rule.kind == "adagrad":
        state["v"] = state["v"] + g**2
        return g / _root(rule, state["v"], 1.0)
    if rule.kind == "rmsprop":
        two = rule.betas[1]
        state["v"] = two * state["v"] + (1 - two) * g**2
        state["m"] = two * state["m"] + (1 - two) * g
        v = state["v"] - state["m"] ** 2 if rule.centred else state["v"]
        g = g / _root(rule, v, 1 - two ** (step + 1) if rule.corrected[1] else 1.0)
    if not rule.momentum:
        return g
    share = 1 - rule.dampening if step or rule.damped_first else 1.0
    if rule.carried_rate:
        state["b"] = rule.momentum * state.get("b", 0.0) + rate * share * g
        return (rate * g + rule.momentum * state["b"] if rule.nesterov else state["b"]) / (rate or 1.0)
    state["b"] = rule.momentum * state.get("b", 0.0) + share * g
    return g + rule.momentum * state["b"] if rule.nesterov else state["b"]


def _root(rule: Rule, v: np.ndarray, correction: float) -> np.ndarray:
    if rule.inside:
        return np.sqrt(v / correction + rule.epsilon)
    if rule.early:
        return (np.sqrt(v) + rule.epsilon) / math.sqrt(correction)
    return np.sqrt(v / correction) + rule.epsilon


Change = Callable[[Rule], Rule]
_EPSILONS = (0.0, 1e-16, 1e-15, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
_BETAS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
_MOMENTUM_DECAYS = (0.0, 1e-3, 2e-3, 4e-3, 8e-3, 0.01, 0.04)
_DECAYS = (1e-6, 1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 2e-2, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3)


def hypotheses(rule: Rule, largest_decay: float, matrix: bool) -> dict[str, Change]:
    """What another may do instead → the change of one parameter's rule.

    Args:
        rule: of the parameter.
        largest_decay: of all parameters.
        matrix: whether the parameter has two axes or more.
    """

    def put(**fields: Any) -> Change:
        return lambda it: dataclasses.replace(it, **fields)

    told: dict[str, Change] = {
        "is one step ahead in the schedule": put(shift=1),
        "is one step behind in the schedule": put(shift=-1),
    }
    if rule.kind not in ("sgd", "lion"):
        told["adds epsilon inside the root"] = put(inside=True)
        told |= {f"uses epsilon {it:g}": put(epsilon=it) for it in _EPSILONS}
        told |= {f"adds epsilon {it:g} inside the root": put(inside=True, epsilon=it) for it in _EPSILONS[1:]}
    if rule.kind == "adam":
        told |= {
            "adds epsilon before the second moment is corrected": put(early=True),
            "does not correct the moments for their start at 0": put(corrected=(False, False)),
            "does not correct the first moment for its start at 0": put(corrected=(False, True)),
            "does not correct the second moment for its start at 0": put(corrected=(True, False)),
            "keeps the largest second moment (AMSGrad)": put(largest=True),
            "does not keep the largest second moment (no AMSGrad)": put(largest=False),
            "uses Nesterov's form (NAdam)": put(nesterov=True),
        }
        if rule.momentum_decay is not None:
            told |= {
                "keeps its momentum at beta1, which PyTorch raises from half of it": put(
                    momentum_decay=None, nesterov=True
                ),
                "leaves out Nesterov's form (Adam)": put(momentum_decay=None),
            }
            told |= {f"uses momentum decay {it:g}": put(momentum_decay=it) for it in _MOMENTUM_DECAYS}
    if rule.kind == "lion":
        told |= {
            "takes no sign": put(signed=False),
            "updates its momentum before the sign is taken": put(early_momentum=True),
            "swaps its betas": lambda r: dataclasses.replace(r, betas=r.betas[::-1]),
            "takes the sign of its momentum alone, with the gradient in it": lambda r: dataclasses.replace(
                r, early_momentum=True, betas=(1.0, r.betas[1])
            ),
        }
    if rule.kind in ("adam", "lion"):
        told |= {f"uses beta1 {it:g}": (lambda r, it=it: dataclasses.replace(r, betas=(it, r.betas[1])))
                 for it in _BETAS}  # fmt: skip
    if rule.kind in ("adam", "rmsprop", "lion"):
        name = "decay of the squares" if rule.kind == "rmsprop" else "beta2"
        told |= {f"uses {name} {it:g}": (lambda r, it=it: dataclasses.replace(r, betas=(r.betas[0], it)))
                 for it in _BETAS}  # fmt: skip
    if rule.kind == "rmsprop":
        told["corrects the squares for their start at 0"] = put(corrected=(False, True))
        told["subtracts the square of the mean" if not rule.centred else "does not subtract the square of the mean"] = (
            put(centred=not rule.centred)
        )
    if rule.kind == "adagrad":
        told |= {f"starts the sum of squares at {it:g}": put(start=it) for it in (0.0, 0.1, 1.0)}
        told["starts the sum of squares at 0.1, with epsilon 1e-07 inside the root"] = put(
            start=0.1, epsilon=1e-7, inside=True
        )
    if rule.kind in ("sgd", "rmsprop"):
        told |= {
            "uses Nesterov's form of momentum": put(nesterov=True),
            "does not use Nesterov's form of momentum": put(nesterov=False),
            "dampens gradients by 1 - momentum": lambda r: dataclasses.replace(r, dampening=r.momentum),
            "dampens gradients by 1 - momentum, the first too": lambda r: dataclasses.replace(
                r, dampening=r.momentum, damped_first=True
            ),
            "does not dampen gradients": put(dampening=0.0),
            "collects updates in its momentum, with the rates of their steps": put(carried_rate=True),
        }
        told |= {f"uses momentum {it:g}": put(momentum=it) for it in _BETAS}
    if largest_decay:
        told |= {
            "leaves out weight decay": put(decay=0.0),
            "adds weight decay to the gradient (L2), not to the weights": put(coupled=True),
            "decays weights apart from the gradient (decoupled)": put(coupled=False),
            "does not multiply weight decay by the learning rate": put(coupled=False, by_rate=False),
            "decays weights after their update": put(coupled=False, late=True),
            "decays every parameter": put(decay=largest_decay),
            "does not decay parameters of one axis": (
                lambda r: dataclasses.replace(r, decay=r.decay if matrix else 0.0)
            ),
        }
    for it in _DECAYS:
        told[f"uses weight decay {it:g}"] = put(decay=it)
        told[f"uses weight decay {it:g}, decoupled"] = put(decay=it, coupled=False)
    return told
