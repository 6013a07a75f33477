"""Models of transformers against ports in Flax, with one mistake each: found at its layer, and never named wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.vit_parity.porting.ports import gpt2, ported_gpt2, ported_resnet, resnet, tokens
from vit_parity.porting import Porting, compare

IDS = np.random.default_rng(3).integers(0, 50, (2, 9))
IMAGES = tokens(2, 3, 40, 48)
Fault = tuple[str, Callable[[Any], None], str, str | None]
"""Name, the mistake, A's stage that it is found at, and the cause that is named; ``None`` where none has to be."""


def against_gpt2(change: Callable[[Any], None] | None = None) -> Porting:
    model = gpt2()
    mirror = ported_gpt2(model)
    if change is not None:
        change(mirror)
    return compare(model, mirror, {"input_ids": IDS}, inputs_b=IDS)


def against_resnet(change: Callable[[Any], None] | None = None) -> Porting:
    model = resnet()
    mirror = ported_resnet(model)
    if change is not None:
        change(mirror)
    return compare(model, mirror, IMAGES)


def _at(model: Any, path: str) -> Any:
    for step in filter(None, path.split(".")):
        model = model[int(step)] if step.isdigit() else getattr(model, step)
    return model


def _set(path: str, **values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in values.items():
            setattr(_at(model, path), name, value)

    return change


def _weights(path: str, name: str, function: Callable[[jax.Array], jax.Array]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        variable = getattr(_at(model, path), name)
        variable[...] = function(variable[...])

    return change


def _halves(kernel: jax.Array) -> jax.Array:
    return jnp.concatenate(jnp.split(kernel, 2, 0)[::-1], 0)


def gpt2_faults() -> Iterator[Fault]:
    for at in range(2):
        ours, theirs = f"blocks.{at}", f"h.{at}"
        linears = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
        for part, name in linears.items():
            stage = f"{theirs}.{name}"
            yield f"{part} {at} no bias", _weights(f"{ours}.{part}", "bias", jnp.zeros_like), stage, "leaves out bias"
            yield (
                f"{part} {at} bias twice",
                _weights(f"{ours}.{part}", "bias", lambda x: 2 * x),
                stage,
                "adds bias twice",
            )
            told = "has the halves of its input features in the order (1, 0)"
            yield f"{part} {at} halves", _weights(f"{ours}.{part}", "kernel", _halves), stage, told
        told = "reads its matrix transposed"
        yield f"proj {at} transposed", _weights(f"{ours}.proj", "kernel", jnp.transpose), f"{theirs}.attn.c_proj", told
        for norm, name in {"ln_attn": "ln_1", "ln_mlp": "ln_2"}.items():
            path, stage = f"{ours}.{norm}", f"{theirs}.{name}"
            yield f"{norm} {at} 1e-6", _set(path, epsilon=1e-6), stage, "uses epsilon 1e-06"
            yield f"{norm} {at} 1e-3", _set(path, epsilon=1e-3), stage, "uses epsilon 0.001"
            yield f"{norm} {at} no bias", _weights(path, "bias", jnp.zeros_like), stage, "leaves out the bias"
            yield f"{norm} {at} no scale", _weights(path, "scale", jnp.ones_like), stage, "leaves out the scale"
        attention, mlp = f"{theirs}.attn.c_proj", f"{theirs}.mlp.c_proj"
        yield f"mask {at}", _set(ours, causal=False), attention, "leaves out the causal mask"
        yield f"scale {at}", _set(ours, scale=1.0), attention, "does not scale its scores"
        yield (
            f"scale of all {at}",
            _set(ours, scale=24**-0.5),
            attention,
            ("scales its scores by 1 / sqrt(D), not by that of a head"),
        )
        yield (
            f"order {at}",
            _set(ours, order=(1, 0, 2)),
            attention,
            ("takes for queries, keys and values its keys, queries, values"),
        )
        yield (
            f"erf {at}",
            _set(ours, act=lambda x: nnx.gelu(x, approximate=False)),
            mlp,
            "uses GELU instead of tanh GELU",
        )
        yield f"relu {at}", _set(ours, act=nnx.relu), mlp, "uses ReLU instead of tanh GELU"
    yield "first position", _set("", first=1), "wpe", None


def resnet_faults() -> Iterator[Fault]:
    stages = {"layers.0.one": "0.layers.0.layer.0", "layers.1.two": "1.layers.0.layer.1",
              "layers.1.short": "1.layers.0.shortcut", "layers.2.one": "1.layers.1.layer.0"}  # fmt: skip
    names = {ours: f"encoder.stages.{theirs}" for ours, theirs in stages.items()} | {"stem": "embedder.embedder"}
    for ours, theirs in names.items():
        conv, norm = f"{theirs}.convolution", f"{theirs}.normalization"
        yield f"{ours} 1e-3", _set(f"{ours}.bn", epsilon=1e-3), norm, "uses epsilon 0.001"
        yield (
            f"{ours} training",
            _set(f"{ours}.bn", use_running_average=False),
            norm,
            ("uses the statistics of the batch, as in training mode"),
        )
        yield f"{ours} no bias", _weights(f"{ours}.bn", "bias", jnp.zeros_like), norm, "leaves out the bias"
        if "short" not in ours:
            flipped = _weights(f"{ours}.conv", "kernel", lambda x: x[::-1, ::-1])
            yield f"{ours} flipped", flipped, conv, "flips its kernel"
            turned = _weights(f"{ours}.conv", "kernel", lambda x: x.swapaxes(0, 1))
            yield f"{ours} rows and columns", turned, conv, "swaps rows and columns of its kernel"
    yield (
        "stem SAME",
        _set("stem.conv", padding="SAME"),
        "embedder.embedder.convolution",
        ("pads by (2, 4) in height and (2, 4) in width"),
    )


PAIRS = [(against_gpt2, fault) for fault in gpt2_faults()] + [(against_resnet, fault) for fault in resnet_faults()]


@pytest.mark.parametrize("against", [against_gpt2, pytest.param(against_resnet, marks=pytest.mark.slow)])
def test_sound_ports_are_accused_of_nothing(against) -> None:
    found = against()
    assert found.equal, str(found)
    assert max(row.alone or 0 for row in found.rows) < 1e-12


def _case(against: Callable[[Any], Porting], fault: Fault) -> Any:
    return pytest.param(against, fault, id=fault[0])


@pytest.mark.slow
@pytest.mark.parametrize(("against", "fault"), [_case(*it) for it in PAIRS])
def test_a_mistake_is_found_at_its_layer_and_named(against, fault) -> None:
    _, change, stage, cause = fault
    found = against(change)
    assert [it.stage for it in found.faults] == [stage], str(found)
    if cause is not None:
        assert cause in found.faults[0].causes, found.faults[0].causes
    assert not any(row.judged in ("divergence", "unknown") for row in found.rows if row.name != stage)
