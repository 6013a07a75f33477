"""Training loops in PyTorch and JAX, captured as they run: against the same computations, and each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import vitport
from tests.vit_parity.porting.ports import tokens
from vit_cli.main import main
from vit_parity.porting import capturing, compare_steps, tag
from vit_spec import VitportError

X = [tokens(4, 6) * (1 + step) for step in range(3)]
RATE = 0.1


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Tanh(), torch.nn.Linear(6, 6), torch.nn.Linear(6, 2))


def train(model: torch.nn.Module, rate: float = RATE) -> None:
    optimizer = torch.optim.SGD(model.parameters(), rate)
    for x in X:
        optimizer.zero_grad()
        model(torch.tensor(x)).square().mean().backward()
        optimizer.step()


class Port(nnx.Module):
    """The network as a port: one layer rematerialized, the next in a scan of one step."""

    def __init__(self, between: Callable[[jax.Array], jax.Array] = lambda x: x) -> None:
        one, _, two, three = network()
        self.one, self.three = self._layer(one), self._layer(three)
        graph, state = nnx.split(self._layer(two))
        self.two = nnx.merge(graph, jax.tree.map(lambda it: it[None], state))
        self.between = between

    @staticmethod
    def _layer(layer: torch.nn.Linear) -> nnx.Linear:
        made = nnx.Linear(layer.in_features, layer.out_features, rngs=nnx.Rngs(0))
        made.kernel[...], made.bias[...] = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
        return made

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.between(jnp.tanh(nnx.remat(lambda one, x: one(x))(self.one, x)))
        run: Any = nnx.scan(lambda x, two: two(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.three(run(x, self.two))


@nnx.jit
def step(model: Port, optimizer: nnx.Optimizer, x: jax.Array) -> jax.Array:
    loss, gradients = nnx.value_and_grad(lambda model: (model(x) ** 2).mean())(model)
    optimizer.update(model, gradients)
    return loss


def train_port(model: Port, rate: float = RATE) -> list[float]:
    optimizer = nnx.Optimizer(model, optax.sgd(rate), wrt=nnx.Param)
    return [float(step(model, optimizer, x)) for x in X]


@pytest.fixture(scope="module")
def theirs() -> vitport.Steps:
    model = network()
    with capturing(model, gradients=True) as steps:
        train(model)
    return steps


def test_a_compiled_loop_in_jax_is_captured_as_it_is_and_runs_as_before() -> None:
    usual = train_port(Port())
    model = Port()
    with capturing(model, gradients=True) as steps:
        losses = train_port(model)
        assert len(steps) == 3  # also while it runs
    assert losses == usual
    assert [it for it in vars(model.one) if "vitport" in it] == []
    assert train_port(Port()) == usual
    assert len(steps) == 3  # nobody listens any more
    names = ["one", "two[0]", "three", "output"]
    assert list(steps[1].activations) == [*names, *(f"gradient({name})" for name in reversed(names))]
    plain = Port()
    optimizer = nnx.Optimizer(plain, optax.sgd(RATE), wrt=nnx.Param)
    for x, kept in zip(X, steps, strict=True):
        first = x @ np.asarray(plain.one.kernel[...]) + np.asarray(plain.one.bias[...])
        np.testing.assert_allclose(kept.activations["one"], first, rtol=1e-5, atol=1e-6)
        output = np.asarray(plain(x))
        np.testing.assert_allclose(kept.activations["output"], output, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(kept.activations["gradient(three)"], 2 * output / output.size, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(kept.images, x)
        step(plain, optimizer, x)


def test_loops_of_both_frameworks_agree_step_by_step(theirs: vitport.Steps) -> None:
    model = Port()
    with capturing(model, gradients=True) as steps:
        train_port(model)
    found = compare_steps(theirs, steps)
    assert found.equal, str(found)
    assert [it.step for it in found.steps] == [0, 1, 2]
    assert max(it.distance for it in found.steps) < 2e-6  # measured 4e-7
    assert "Rounding explains every difference of 3 steps" in str(found)


def test_the_step_and_the_stage_that_part_first_are_told(theirs: vitport.Steps) -> None:
    model = Port()
    with capturing(model, gradients=True) as steps:
        train_port(model, rate=RATE * 1.01)
    found = compare_steps(theirs, steps)
    assert [it.equal for it in found.steps] == [True, False, False]
    assert (found.steps[1].stage, found.steps[1].counterpart) == ("0", "one")
    assert "look at the update between" in found.conclusion
    model = Port(jax.lax.stop_gradient)
    with capturing(model, gradients=True) as steps:
        train_port(model)
    found = compare_steps(theirs, steps)
    assert not found.steps[0].equal
    assert found.first is not None
    assert "gradient" in found.steps[0].stage


def test_steps_and_names_are_chosen_and_kept_on_disk(tmp_path, capsys, theirs) -> None:
    model = Port()
    with capturing(model, names=["t*"], steps=(0, 2), to=tmp_path / "mine") as steps:
        train_port(model)
    assert (steps.numbers, [list(it.activations) for it in steps]) == ([0, 2], [["two[0]", "three"]] * 2)
    assert sorted(it.name for it in (tmp_path / "mine").iterdir()) == ["step_000000.npz", "step_000002.npz"]
    other = network()
    with capturing(other, to=tmp_path / "theirs") as kept:
        train(other)
    np.testing.assert_array_equal(kept[2].activations["3"], theirs[2].activations["3"])
    found = compare_steps(tmp_path / "theirs", tmp_path / "mine", pairs=["2 = two[0]", "3 = three"])
    assert found.equal
    assert [it.step for it in found.steps] == [0, 2]
    words = ["compare", "--a", str(tmp_path / "theirs"), "--b", str(tmp_path / "mine")]
    (tmp_path / "pairs.txt").write_text("2 = two[0]\n3 = three\n")
    assert main([*words, "--pairs", str(tmp_path / "pairs.txt")]) == 0
    assert "Rounding explains every difference of 2 steps" in capsys.readouterr().out
    with pytest.raises(VitportError, match="no step in common"):
        compare_steps(kept[:2], steps[1:])
    with pytest.raises(VitportError, match=r"holds no step_\*\.npz"):
        compare_steps(tmp_path, tmp_path / "mine")


def test_a_model_that_was_split_before_is_seen_by_its_paths() -> None:
    pytest.importorskip("equinox")  # whose modules are tagged beside
    port = Port()
    graph, state = nnx.split(port)
    run = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    with capturing(port) as steps:
        run(state, X[0])
        run(state, X[1])
    assert [list(it.activations) for it in steps] == [["one", "two[0]", "three", "output"]] * 2


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return linen.Dense(3, name="head")(jnp.tanh(linen.Dense(4)(x)))


def test_linen_functions_with_tags_and_vmap_are_seen_in_a_compiled_step() -> None:
    module = Dense()
    params = module.init(jax.random.key(0), X[0])

    @jax.jit
    def update(params: Any, x: jax.Array) -> Any:
        gradients = jax.grad(lambda params: (module.apply(params, x) ** 2).mean())(params)
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradients)

    first = params
    with capturing(module) as steps:
        for x in X:
            params = update(params, x)
    assert [list(it.activations) for it in steps] == [["Dense_0", "head", "output"]] * 3
    np.testing.assert_allclose(steps[0].activations["output"], module.apply(first, X[0]), rtol=1e-5, atol=1e-6)

    def tagged(w: jax.Array, x: jax.Array) -> jax.Array:
        x, _ = jax.lax.scan(lambda x, w: (tag("mix", jnp.tanh(x @ w)), None), x, w)
        return jax.vmap(lambda row: tag("row", row * 2))(x)

    moved = jax.jit(lambda w, x: w - RATE * jax.grad(lambda w: tagged(w, x).sum())(w))
    weights = jnp.stack([jnp.eye(6) * 0.5] * 2)
    with capturing() as steps:
        for x in X:
            weights = moved(weights, x)
    assert [list(it.activations) for it in steps] == [["mix[0]", "mix[1]", "row"]] * 3
    np.testing.assert_allclose(steps[0].activations["mix[0]"], np.tanh(X[0] * 0.5), rtol=1e-6)
    np.testing.assert_allclose(steps[0].activations["row"], 2 * steps[0].activations["mix[1]"], rtol=1e-6)


def test_a_module_of_equinox_is_seen_in_a_compiled_step() -> None:
    equinox = pytest.importorskip("equinox")
    assert "equinox" in sys.modules
    model = equinox.nn.MLP(6, 2, 5, 1, key=jax.random.key(0))

    @equinox.filter_jit
    def update(model: Any, x: jax.Array) -> Any:
        gradients = equinox.filter_grad(lambda model: (jax.vmap(model)(x) ** 2).mean())(model)
        return equinox.apply_updates(model, jax.tree.map(lambda g: -RATE * g, gradients))

    before = model
    with capturing(model) as steps:
        for x in X:
            model = update(model, x)
    assert len(steps) == 3
    np.testing.assert_allclose(steps[0].activations["output"], jax.vmap(before)(X[0]), rtol=1e-5, atol=1e-6)
    assert {"layers.0", "layers.1", "output"} <= set(steps[0].activations)
