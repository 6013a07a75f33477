"""torch.optim against optax: equal rules are found equal, and what differs is named by what it is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from vit_parity.porting import compare_optimizers
from vit_spec import VitportError

RNG = np.random.default_rng(1)
WEIGHTS = {
    name: {"kernel": RNG.standard_normal(shape), "bias": RNG.standard_normal(shape[1])}
    for name, shape in {"fc1": (6, 5), "fc2": (5, 3)}.items()
}
MATRICES = {name: {"kernel": True, "bias": False} for name in WEIGHTS}
OPTAX = optax.adamw(1e-3, weight_decay=0.05)
WARM = optax.linear_schedule(1e-3, 1e-2, 8)


def adamw(**options: Any) -> Any:
    given = {"weight_decay": 0.05} | options
    return lambda params: torch.optim.AdamW(params.values(), 1e-3, **given)


def sgd(**options: Any) -> Any:
    return lambda params: torch.optim.SGD(params.values(), 1e-2, 0.9, **options)


def rmsprop(params: Any) -> Any:
    return torch.optim.RMSprop(params.values(), 1e-3, alpha=0.9)


def warmed(params: Any) -> Any:
    optimizer = torch.optim.AdamW(params.values(), 1e-2, weight_decay=1e-4)
    return optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 8)


def clipped(params: Any) -> Any:
    return adamw()(params), lambda params: torch.nn.utils.clip_grad_norm_(params, 0.01)


def grouped(params: Any) -> Any:
    groups = [
        {"params": [it for it in params.values() if it.ndim > 1], "weight_decay": 0.05},
        {"params": [it for it in params.values() if it.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, 1e-3)


class Lion(torch.optim.Optimizer):
    """As its authors publish it (Chen et al. 2023, algorithm 2)."""

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99),
                 weight_decay: float = 0.05) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            one, two = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                update = (one * m + (1 - one) * p.grad).sign() + group["weight_decay"] * p
                p -= group["lr"] * update
                m.mul_(two).add_(p.grad, alpha=1 - two)


def nadam(**options: Any) -> Any:
    return lambda params: torch.optim.NAdam(params.values(), 1e-3, **options)


def lion(params: Any) -> Any:
    return Lion(params.values())


def scheduled_nadam(decay: float) -> optax.GradientTransformation:
    """PyTorch's NAdam in JAX."""

    def init(params: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.zeros((), jnp.float64), jnp.ones((), jnp.float64), zeros, zeros

    def update(gradients: Any, state: Any, _: Any = None) -> Any:
        count, product, m, v = state
        now, following = (0.9 * (1 - 0.5 * 0.96 ** ((count + at) * decay)) for at in (1, 2))
        product = product * now
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, gradients)

        def step(m: Any, v: Any, g: Any) -> Any:
            top = following * m / (1 - product * following) + (1 - now) * g / (1 - product)
            return -1e-3 * top / (jnp.sqrt(v / (1 - 0.999 ** (count + 1))) + 1e-8)

        return jax.tree.map(step, m, v, gradients), (count + 1, product, m, v)

    return optax.GradientTransformation(init, update)


SAME = {
    "NAdam": (nadam(), scheduled_nadam(4e-3)),
    "Lion": (lion, optax.lion(1e-3, weight_decay=0.05)),
    "AdamW": (adamw(), OPTAX),
    "Adam with L2": (lambda it: torch.optim.Adam(it.values(), 1e-3, weight_decay=0.05),
                     optax.chain(optax.add_decayed_weights(0.05), optax.adam(1e-3))),
    "SGD": (sgd(), optax.sgd(1e-2, 0.9)),
    "SGD, Nesterov": (sgd(nesterov=True), optax.sgd(1e-2, 0.9, nesterov=True)),
    "RMSprop": (rmsprop, optax.rmsprop(1e-3, eps_in_sqrt=False)),
    "a schedule": (warmed, optax.adamw(WARM, weight_decay=1e-4)),
    "groups": (grouped, optax.adamw(1e-3, weight_decay=0.05, mask=MATRICES)),
}  # fmt: skip
OTHER = {
    "NAdam without its schedule": (nadam(), optax.nadam(1e-3),
                                   "keeps its momentum at beta1, which PyTorch raises from half of it"),
    "NAdam as Adam": (nadam(), optax.adam(1e-3), "leaves out Nesterov's form (Adam)"),
    "momentum decay": (nadam(), scheduled_nadam(8e-3), "uses momentum decay 0.008"),
    "Lion's beta2": (lion, optax.lion(1e-3, b2=0.95, weight_decay=0.05), "uses beta2 0.95"),
    "Lion's betas swapped": (lion, optax.lion(1e-3, b1=0.99, b2=0.9, weight_decay=0.05), "swaps its betas"),
    "Lion's decay by default": (lion, optax.lion(1e-3), "uses weight decay 0.001"),
    "Lion without decay": (lion, optax.lion(1e-3, weight_decay=0.0), "leaves out weight decay"),
    "Lion with L2": (lion, optax.chain(optax.add_decayed_weights(0.05), optax.lion(1e-3, weight_decay=0.0)),
                     "adds weight decay to the gradient (L2), not to the weights"),
    "epsilon": (adamw(), optax.adamw(1e-3, eps=1e-6, weight_decay=0.05), "uses epsilon 1e-06"),
    "epsilon in the root": (adamw(), optax.adamw(1e-3, eps=0, eps_root=1e-8, weight_decay=0.05),
                            "adds epsilon inside the root"),
    "RMSprop by default": (rmsprop, optax.rmsprop(1e-3), "adds epsilon inside the root"),
    "L2": (adamw(), optax.chain(optax.add_decayed_weights(0.05), optax.adam(1e-3)),
           "adds weight decay to the gradient (L2), not to the weights"),
    "no decay": (adamw(), optax.adam(1e-3), "leaves out weight decay"),
    "decay by default": (adamw(weight_decay=0.01), optax.adamw(1e-3), "uses weight decay 0.0001"),
    "decay without the rate": (
        adamw(), optax.chain(optax.scale_by_adam(), optax.scale(-1e-3), optax.add_decayed_weights(-0.05)),
        "does not multiply weight decay by the learning rate",
    ),
    "decay of matrices": (adamw(), optax.adamw(1e-3, weight_decay=0.05, mask=MATRICES),
                          "does not decay parameters of one axis"),
    "decay of all": (grouped, optax.adamw(1e-3, weight_decay=0.05), "decays every parameter"),
    "rate": (adamw(), optax.adamw(3e-3, weight_decay=0.05), "uses 3 times the learning rate"),
    "beta2": (adamw(), optax.adamw(1e-3, b2=0.95, weight_decay=0.05), "uses beta2 0.95"),
    "schedule": (warmed, optax.adamw(lambda step: WARM(step + 1), weight_decay=1e-4),
                 "is one step ahead in the schedule"),
    "momentum as a mean": (sgd(), optax.chain(optax.ema(0.9, debias=False), optax.scale(-1e-2)),
                           "dampens gradients by 1 - momentum, the first too"),
    "Nesterov": (sgd(), optax.sgd(1e-2, 0.9, nesterov=True), "uses Nesterov's form of momentum"),
    "clipping to the last bit": (clipped, optax.chain(optax.clip_by_global_norm(0.01), OPTAX),
                                 "clips by the whole norm without PyTorch's 1e-6 in the divisor"),
    "no clipping": (clipped, OPTAX, "does not clip gradients"),
    "clipping by value": (clipped, optax.chain(optax.clip(0.01), OPTAX),
                          "clips gradients by value, at 0.01"),
    "L2 and epsilon": (adamw(), optax.chain(optax.add_decayed_weights(0.05), optax.adam(1e-3, eps=1e-6)),
                       "uses epsilon 1e-06 and adds weight decay to the gradient (L2), not to the weights"),
}  # fmt: skip
QUICK = ("L2",)


def quick(names: Any) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", quick(SAME))
def test_equal_rules_take_the_same_steps(name) -> None:
    found = compare_optimizers(*SAME[name], WEIGHTS)
    assert found.equal, str(found)
    single = ("a schedule", "NAdam")  # optax computes its rates in float32, PyTorch's NAdam the product of its momenta
    assert found.steps[-1].distance < (1e-6 if name in single else 1e-12)
    assert "Rounding explains every difference of 8 steps" in str(found)


@pytest.mark.parametrize("name", quick(OTHER))
def test_what_differs_is_named(name) -> None:
    a, b, cause = OTHER[name]
    found = compare_optimizers(a, b, WEIGHTS)
    assert not found.equal
    assert cause in found.causes
    assert len(found.causes) == 1 or name == "momentum as a mean"  # which is a tenth of the rate
    assert f"B {', or '.join(found.causes)}." in str(found)


@pytest.mark.slow
def test_a_rule_that_is_not_known_is_told_without_a_cause() -> None:
    found = compare_optimizers(adamw(), optax.lion(1e-3), WEIGHTS, steps=3)
    assert (found.steps[0].equal, found.causes) == (False, ())
    assert "B parts at step 1" in found.conclusion
    assert "No known cause explains it" in found.conclusion


@pytest.mark.slow
def test_gradients_of_ones_own_and_models_are_taken_and_the_sides_may_be_swapped() -> None:
    model = torch.nn.Linear(3, 2)
    gradients = [{"weight": np.full((2, 3), 0.1 * at), "bias": np.ones(2)} for at in range(1, 4)]
    found = compare_optimizers(sgd(), optax.sgd(1e-2, 0.9), model, gradients)
    assert found.equal
    assert len(found.steps) == 3
    late = [gradients[0], {"weight": np.zeros((2, 3)), "bias": np.zeros(2)}]
    found = compare_optimizers(optax.sgd(1e-2), sgd(), model, late)
    assert [it.equal for it in found.steps] == [True, False]  # momentum shows at the second step
    assert found.causes == ("is the one in PyTorch, and A uses momentum 0",)


def test_what_cannot_take_steps_is_refused() -> None:
    with pytest.raises(VitportError, match="optimizer B is a float: give an optax transformation"):
        compare_optimizers(sgd(), 1e-3, WEIGHTS)
    with pytest.raises(VitportError, match="returns a int, not a"):
        compare_optimizers(lambda _: 3, optax.sgd(1.0), WEIGHTS)
    with pytest.raises(VitportError, match="gradients of step 1 do not have the names and shapes"):
        compare_optimizers(sgd(), optax.sgd(1.0), WEIGHTS, [{"fc1": {"kernel": np.ones(3)}}])
    with pytest.raises(VitportError, match="The optimizer A fails"):
        compare_optimizers(lambda it: torch.optim.SGD(it.values(), -1.0), optax.sgd(1.0), WEIGHTS)
    with pytest.raises(VitportError, match="At least one step"):
        compare_optimizers(sgd(), optax.sgd(1.0), WEIGHTS, steps=0)
    with pytest.raises(VitportError, match="no weights to optimize"):
        compare_optimizers(sgd(), optax.sgd(1.0), {})
