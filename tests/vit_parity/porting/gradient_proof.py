"""Mistakes on the way back alone: ``python -m tests.vit_parity.porting.gradient_proof [--two] [PAIR …]``.

Nothing that the port computes changes; its derivatives do. Prints the rows of a table of docs/reports/porting.md, and
what is not as it should be. ``--two`` plants two at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.vit_parity.porting.pairs import pair
from tests.vit_parity.porting.pairs.pair import PortedModel, at, channels_last
from tests.vit_parity.porting.tally import Tally, run
from vit_parity.porting import Porting, compare
from vit_parity.porting.capture import model_of
from vit_parity.porting.jax_backward import JaxBackward
from vit_parity.porting.jax_model import JaxModel

COLUMNS = ("planted", "where it is", "unseen, below rounding", "wrong")
TWICE = 24
"""Draws of two mistakes for each pair of models."""
Function = Callable[[Any], Any]
BLOCKS = {
    "gpt2": {f"blocks.{it}": f"h.{it}" for it in range(2)},
    "llama": {f"blocks.{it}": f"layers.{it}" for it in range(2)},
    "vit": {f"blocks.{it}": f"layers.{it}" for it in range(2)},
    "convnext": {"first.0": "encoder.stages.0.layers.0", "first.1": "encoder.stages.0.layers.1",
                 "second.0": "encoder.stages.1.layers.0"},
    "resnet": {"layers.0": "encoder.stages.0.layers.0", "layers.1": "encoder.stages.1.layers.0",
               "layers.2": "encoder.stages.1.layers.1"},
    "dit": {f"blocks.{it}": f"blocks.{it}" for it in range(2)},
    "unet": {it: it for it in ("start", "down", "middle", "join")},
}  # fmt: skip
"""Path of a block of the port → A's stage."""
SAME = {("resnet", "encoder.stages.0.layers.0"): ("encoder.stages.0",)}
"""Further names of a block of A: a stage of ResNet with one layer is that layer."""
ACTIVATIONS = {
    "gpt2": (nnx.gelu, "act", "mlp.c_fc", "mlp.c_proj"), "llama": (nnx.silu, "act", "mlp.gate_proj", "mlp.down_proj"),
    "vit": (partial(nnx.gelu, approximate=False), "act", "mlp.fc1", "mlp.fc2"),
    "convnext": (partial(nnx.gelu, approximate=False), "act", "pwconv1", "pwconv2"),
    "resnet": (nnx.relu, "last", "", "layer.1.normalization"), "dit": (nnx.gelu, "act", "fc1", "fc2"),
    "unet": (nnx.silu, "act", "norm", ""),
}  # fmt: skip
"""Function of a block, the attribute that holds it, and A's stages before and behind it; "" is the block."""


def scaled(by: float) -> Function:
    """The identity, whose derivative is another."""
    return _backward(lambda arrived: arrived * by)


def _backward(change: Function) -> Function:
    same = jax.custom_vjp(lambda x: x)
    same.defvjp(lambda x: (x, None), lambda _, arrived: (change(arrived),))
    return same


rounded = _backward(lambda arrived: arrived.astype(jnp.bfloat16).astype(arrived.dtype))
clipped = _backward(lambda arrived: arrived * jnp.minimum(1.0, 0.01 / jnp.maximum(jnp.linalg.norm(arrived), 1e-30)))
stop = jax.lax.stop_gradient


def with_derivative(value: Function, other: Function) -> Function:
    """A function with the derivative of another."""
    made = jax.custom_jvp(partial(_called, value))
    made.defjvp(lambda primals, tangents: (value(primals[0]), jax.jvp(other, primals, tangents)[1]))
    return made


def _called(function: Function, x: Any) -> Any:
    return function(x)


@dataclass(frozen=True)
class Mistake:
    """One wrong derivative in a port."""

    name: str
    change: Callable[[Any], None]
    stages: tuple[str, ...]
    """A's stages between which it is; it may be found at any of them, or at one of their parameters."""


def method(path: str, change: Callable[[Any], Function]) -> Callable[[Any], None]:
    """Another ``__call__`` of a part, made of its class."""

    def planted(model: Any) -> None:
        part = at(model, path)
        own = type(part)
        part.__class__ = type(own.__name__, (own,), {"__call__": change(own)})

    return planted


def around(before: Function, behind: Function) -> Callable[[Any], Function]:
    """A call with something before it and behind it."""
    return lambda own: lambda self, x, *more: behind(own.__call__(self, before(x), *more))


def once_more(add: float) -> Callable[[Any], Function]:
    """One use of the input counts ``1 + add`` times on the way back; the value is the same to the last bit."""
    return lambda own: lambda self, x, *more: own.__call__(self, x, *more) + add * (x - stop(x))


def of_parameter(name: str, change: Function) -> Callable[[Any], Function]:
    """A parameter goes through something before it is used."""

    def changed(own: Any) -> Function:
        def call(self: Any, *given: Any) -> Any:
            variable = getattr(self, name)
            before = variable.get_value()
            variable.set_value(change(before))
            try:
                return own.__call__(self, *given)
            finally:
                variable.set_value(before)

        return call

    return changed


LAYERS: dict[str, Callable[[Any], Function]] = {
    "input detached": around(stop, lambda y: y),
    "half the gradient of its input": around(scaled(0.5), lambda y: y),
    "gradient of its input negated": around(scaled(-1.0), lambda y: y),
    "output detached": around(lambda x: x, stop),
    "twice the gradient of its output": around(lambda x: x, scaled(2.0)),
    "a thousandth more": around(lambda x: x, scaled(1.001)),
    "gradient in bfloat16": around(lambda x: x, rounded),
    "gradient clipped": around(lambda x: x, clipped),
}
PARAMETERS: dict[str, Function] = {"detached": stop, "half its gradient": scaled(0.5), "three times": scaled(3.0)}
WHOLE: dict[str, Callable[[Any], Function]] = {
    "input detached": around(stop, lambda y: y),
    "half the gradient of its output": around(lambda x: x, scaled(0.5)),
}
USES = {"one of two uses lost": -1.0, "one of two uses counted twice": 1.0}
DERIVATIVES: dict[str, Function] = {
    "of tanh GELU": nnx.gelu, "of GELU": partial(nnx.gelu, approximate=False), "of SiLU": nnx.silu, "of ReLU": nnx.relu,
    "straight through": lambda x: x,
}  # fmt: skip


def planted(name: str) -> Iterator[Mistake]:
    """The mistakes of a pair: each in some of the places that may have it."""
    model = pair(name)
    modules = {".".join(map(str, path)): it for path, it in nnx.iter_modules(model.port(model.model))}
    for number, (words, change) in enumerate(LAYERS.items()):
        fitting = [it for it in model.layers if "input" not in words or not isinstance(modules[it], nnx.Embed)]
        for path in fitting[number % 5 :: 5]:
            yield Mistake(f"{words}: {path}", method(path, change), (model.layers[path],))
    of_layers = [(path, it) for path in model.layers for it in ("kernel", "bias", "scale", "embedding")
                 if getattr(modules[path], it, None) is not None]  # fmt: skip
    for number, (words, change) in enumerate(PARAMETERS.items()):
        for path, it in of_layers[number::9]:
            yield Mistake(f"{it} {words}: {path}", method(path, of_parameter(it, change)), (model.layers[path],))
    value, attribute, before, behind = ACTIVATIONS[name]
    for path, stage in BLOCKS[name].items():
        for words, change in WHOLE.items():
            yield Mistake(f"{words}: {path}", method(path, change), (stage, *SAME.get((name, stage), ())))
        if name not in ("resnet", "unet"):  # whose blocks change the shape
            for words, add in USES.items():
                yield Mistake(f"{words}: {path}", method(path, once_more(add)), (stage,))
        for words, other in DERIVATIVES.items():
            sides = tuple(f"{stage}.{it}" if it else stage for it in (before, behind))
            put = with_derivative(value, other)
            if any(abs(float(jax.grad(other)(x) - jax.grad(value)(x))) > 1e-6 for x in (-0.3, 0.3)):  # not its own
                yield Mistake(f"derivative {words}: {path}",
                              lambda it, path=path, put=put: setattr(at(it, path), attribute, put), sides)  # fmt: skip


def _round(stage: str, mistake: Mistake) -> bool:
    return any(it.startswith(f"{stage}.") for it in mistake.stages)


def _at(stage: str, mistake: Mistake) -> bool:
    return any(stage == it or stage.startswith(f"{it}.") for it in mistake.stages)


def compared(model: PortedModel, *changes: Callable[[Any], None]) -> Porting:
    """A against a fresh port with mistakes, with gradients."""
    mirror = model.port(model.model)
    for change in changes:
        change(mirror)
    return compare(model.model, mirror, model.inputs, inputs_b=model.inputs_b, gradients=True)


def moved(model: PortedModel, change: Callable[[Any], None]) -> float:
    """How far a mistake takes the gradients of the port's parameters in float64, relative to the largest of them."""
    given = channels_last(model.inputs) if model.inputs_b is None else model.inputs_b
    runs = []
    for changes in ((), (change,)):
        mirror = model.port(model.model)
        for it in changes:
            it(mirror)
        made = model_of(mirror, given)
        assert isinstance(made, JaxModel)
        runs.append(JaxBackward(made, lambda y: sum((leaf**2).sum() for leaf in jax.tree.leaves(y))).run(wide=True))
    sound, wrong = (run.parameters for run in runs)
    largest = max(float(np.linalg.norm(it)) for it in sound.values())
    return max(float(np.linalg.norm(wrong[name] - sound[name])) for name in sound) / largest


def two_at_a_time(name: str, count: int, seed: int) -> Iterator[tuple[Mistake, Mistake]]:
    """Random mistakes of a pair, of two places in two blocks, so that neither lies in the other."""
    rng, known = np.random.default_rng(seed), list(planted(name))
    while count:
        first, second = (known[it] for it in rng.choice(len(known), 2, replace=False))
        if not any(_at(a, second) or _at(b, first) for a in first.stages for b in second.stages):
            yield first, second
            count -= 1


def tally(name: str, two: bool = False) -> Tally:
    """Every mistake of a pair, or draws of two."""
    model = pair(name)
    found = Tally(model.name)
    for mistakes in two_at_a_time(name, TWICE, 0) if two else ((it,) for it in planted(name)):
        _judge(found, model, mistakes)
    return found


def _judge(tally: Tally, model: PortedModel, mistakes: Sequence[Mistake]) -> None:
    """Plant, and count what is found."""
    together = " and ".join(it.name for it in mistakes)
    found = compared(model, *(it.change for it in mistakes))
    assert found.gradients is not None
    assert not found.faults, f"{together} changed what the port computes: {found.conclusion}"
    faults = found.gradients.faults
    for mistake in mistakes:
        tally.planted += 1
        if any(_at(fault.stage, mistake) for fault in faults):
            tally.located += 1
            continue
        size = moved(model, mistake.change)  # float32 moves a gradient by 1e-6
        words = f"{together}: {mistake.stages} is not found; it moves gradients by {size:.1e}"
        (tally.unseen if size < 1e-6 else tally.lost).append(words)
    tally.wrong += [f"{together}: accused is {fault.sentence}" for fault in faults
                    if not any(_at(fault.stage, it) for it in mistakes)]  # fmt: skip
    for fault in faults:  # beside its first sign, what else of the module round it is wrong
        also = [it.partition(" (")[0] for it in fault.also]
        if not all(any(_at(stage, it) or _round(stage, it) for it in mistakes) for stage in also):
            tally.wrong.append(f"{together}: {fault.sentence}")


if __name__ == "__main__":
    run(sys.argv[1:], COLUMNS, tally)
