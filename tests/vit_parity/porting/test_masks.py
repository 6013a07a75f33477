"""Random masks drawn by one framework and given to the other: with them, and only so, models in training mode agree."""

from __future__ import annotations

from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch.nn import functional

import vitport
from tests.vit_parity.porting.ports import carried, tokens
from vit_cli.main import main
from vit_parity.porting import Masks, compare, record_masks, replay_masks
from vit_spec import VitportError

WIDTH, HEADS = 8, 2
X = tokens(3, 5, WIDTH)
HERE = "tests.vit_parity.porting.test_masks"


class Block(torch.nn.Module):
    """Dropout in attention, of a layer and of a function, and a drop path as timm and as transformers write it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.qkv, self.proj = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
        self.drop = torch.nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.norm(x)).unflatten(-1, (3, HEADS, -1)).movedim(-2, 1).unbind(-2)
        mixed = functional.scaled_dot_product_attention(*parts, dropout_p=0.2 if self.training else 0.0)
        mixed = self.drop(self.proj(mixed.movedim(1, -2).flatten(-2)))
        keep = x.new_empty(x.shape[0], 1, 1).bernoulli_(0.5)
        x = x + mixed * keep.div_(0.5) if self.training else x + mixed
        more = functional.dropout(self.fc(x), 0.1, self.training)
        if self.training:
            more = more / 0.6 * (0.6 + torch.rand(x.shape[0], 1, 1)).floor_()
        return x + more


def blocks() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(Block(), Block()).train()


class Step(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm, self.fc = nnx.LayerNorm(WIDTH, epsilon=1e-5, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.qkv, self.proj = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.drop, self.last = nnx.Dropout(0.3, rngs=nnx.Rngs(1)), nnx.Dropout(0.1, rngs=nnx.Rngs(2))

    def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
        one, two, three = jax.random.split(key, 3)
        q, k, v = jnp.moveaxis(self.qkv(self.norm(x)).reshape(*x.shape[:2], 3, HEADS, -1), 2, 0)
        scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / (WIDTH // HEADS) ** 0.5, -1)
        scores = scores * jax.random.bernoulli(one, 0.8, scores.shape) / 0.8
        mixed = self.drop(self.proj(jnp.einsum("bhqk,bkhd->bqhd", scores, v).reshape(x.shape)))
        x = x + mixed * jax.random.bernoulli(two, 0.5, (len(x), 1, 1)) / 0.5
        return x + self.last(self.fc(x)) * jax.random.bernoulli(three, 0.6, (len(x), 1, 1)) / 0.6


class Port(nnx.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        self.blocks = nnx.List([Step(nnx.Rngs(0)) for _ in range(2)])
        names = {f"{at}.{name}": f"{at}.{name}" for at in range(2) for name in ("norm", "fc", "qkv", "proj")}
        tensors = {name: it.detach().numpy() for name, it in model.state_dict().items()}
        carried(self.blocks, tensors, names)

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x, jax.random.key(0))
        return x


class Scanned(nnx.Module):
    """The port's blocks in one scan, each computed again for gradients."""

    def __init__(self, port: Port) -> None:
        parts = [nnx.split(block) for block in port.blocks]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state in parts))
        self.steps = nnx.merge(parts[0][0], stacked)

    def __call__(self, x: jax.Array) -> jax.Array:
        body: Any = nnx.remat(lambda step, x: step(x, jax.random.key(0)))
        run: Any = nnx.scan(lambda x, step: body(step, x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return run(x, self.steps)


@pytest.mark.parametrize("scanned", [pytest.param(False, marks=pytest.mark.slow), True])
def test_models_in_training_mode_agree_with_the_same_masks_there_and_back(scanned) -> None:
    model = blocks()
    port: Any = Scanned(Port(model)) if scanned else Port(model)
    before = [it.clone() for it in model.state_dict().values()]
    found = compare(model, port, X, masks=True, gradients=True)
    assert found.equal, str(found)
    assert found.exact
    assert found.gradients is not None
    assert found.rows[-1].difference.relative < 5e-7
    assert (found.gradients.only_a, found.gradients.only_b) == ((), ())
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


@pytest.mark.slow
def test_other_masks_are_a_fault_and_so_is_another_rate() -> None:
    model = blocks()
    port = Port(model)
    with record_masks() as masks, torch.no_grad():
        want = model(torch.tensor(X)).numpy()
    shapes = [(3, HEADS, 5, 5), (3, 5, WIDTH), (3, 1, 1), (3, 5, WIDTH), (3, 1, 1)]
    assert [it.shape for it in masks.drawn] == 2 * shapes
    assert masks.drawn[2].any()  # the drop path behind the dropout whose rate is changed below
    assert abs(np.mean(masks.drawn[1]) - 0.7) < 0.15
    with replay_masks(masks), torch.no_grad():
        np.testing.assert_allclose(model(torch.tensor(X)).numpy(), want, rtol=1e-6)
    with replay_masks(masks):
        np.testing.assert_allclose(port(X), want, rtol=1e-5, atol=1e-6)
    assert np.abs(np.asarray(port(X)) - want).max() > 0.1
    assert compare(model, port, X, masks=masks).equal
    other = Masks([~it if it.dtype == bool and it.ndim == 3 else it for it in masks.drawn])
    with replay_masks(other):
        assert np.abs(np.asarray(port(X)) - want).max() > 0.1
    port.blocks[0].drop.rate = 0.35
    found = compare(model, port, X, masks=masks)
    assert not found.equal
    assert all(fault.counterpart.startswith("blocks.0") for fault in found.faults), str(found)


@pytest.mark.slow
def test_masks_of_jax_are_given_to_pytorch_and_kept_in_a_file(tmp_path) -> None:
    model = blocks()
    port = Port(model)
    compiled = nnx.jit(lambda port, x: port(x))
    with record_masks() as masks:
        want = compiled(port, X)
    masks.save(tmp_path / "masks.npz")
    with replay_masks(Masks.load(tmp_path / "masks.npz")), torch.no_grad():
        np.testing.assert_allclose(model(torch.tensor(X)).numpy(), want, rtol=1e-5, atol=1e-6)
    assert compare(port, model, X, masks=True, gradients=True).equal
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(VitportError, match="holds no recorded masks"):
        Masks.load(tmp_path / "other.npz")


def test_channels_are_dropped_in_both_layouts_and_in_other_libraries_of_jax() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Dropout2d(0.5), torch.nn.Dropout(0.2))
    model.train()
    kernel, bias = (it.detach().numpy() for it in model[0].parameters())

    class Convolved(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = linen.Conv(4, (3, 3), padding=1, name="conv")(x)
            x = linen.Dropout(0.5, broadcast_dims=(1, 2), deterministic=False)(x)
            return linen.Dropout(0.2, deterministic=False)(x)

    params = {"params": {"conv": {"kernel": jnp.asarray(kernel.transpose(2, 3, 1, 0)), "bias": jnp.asarray(bias)}}}

    def port(x: jax.Array) -> Any:
        return Convolved().apply(params, x, rngs={"dropout": jax.random.key(0)})

    assert compare(model, port, tokens(2, 3, 6, 7), masks=True).equal


def test_a_vmapped_function_draws_the_masks_of_a_batch() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Dropout(0.4)).train()
    weight, bias = (it.detach().numpy() for it in model[0].parameters())

    def one(x: jax.Array, key: jax.Array) -> jax.Array:
        x = vitport.tag("fc", weight @ x + bias)
        return jnp.where(jax.random.bernoulli(key, 0.6, x.shape), x / 0.6, 0)

    def port(x: jax.Array) -> Any:
        return jax.vmap(one)(x, jax.random.split(jax.random.key(0), len(x)))

    assert compare(model, port, tokens(7, 6), masks=True).equal


def test_training_loops_use_the_same_masks_step_by_step() -> None:
    model = blocks()
    port = Port(model)
    optimizer, mine = torch.optim.SGD(model.parameters(), 0.1), nnx.Optimizer(port, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(port: Port, mine: nnx.Optimizer, x: jax.Array) -> None:
        mine.update(port, nnx.grad(lambda port: (port(x) ** 2).mean())(port))

    with vitport.capturing(model, gradients=True) as theirs, vitport.capturing(port, gradients=True) as ours:
        for at in range(2):
            optimizer.zero_grad()
            with record_masks() as masks:
                model(torch.tensor(X + at)).square().mean().backward()
            optimizer.step()
            with replay_masks(masks):
                step(port, mine, X + at)
    found = vitport.compare_steps(theirs, ours)
    assert found.equal, str(found)
    assert len(found.steps) == 2


def own_model() -> tuple[torch.nn.Module, np.ndarray]:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Dropout(0.4)).train(), X


def test_the_command_lets_both_sides_draw_the_same_masks(capsys) -> None:
    words = ["compare", "--a", f"{HERE}:own_model", "--b", f"{HERE}:own_model"]
    assert main([*words, "--masks"]) == 0
    assert "Rounding explains every difference" in capsys.readouterr().out
    assert main(words) == 2
    assert "or compare with masks=True" in capsys.readouterr().err
    assert main(["compare", "weights.pth", "--masks"]) == 2
    assert "A: for weights alone" in capsys.readouterr().err


def test_what_does_not_fit_is_said() -> None:
    model = blocks()
    port = Port(model)
    with pytest.raises(VitportError, match=r"training mode.*or compare with masks=True"):
        compare(model, port, X)
    with pytest.raises(VitportError, match="A draws no random mask"):
        compare(torch.nn.Linear(8, 8).train(), port, X, masks=True)
    with pytest.raises(VitportError, match="0 of the 10 random masks that were recorded were drawn"):
        compare(model, torch.nn.Sequential(torch.nn.Identity()), X, masks=True)
    short = Masks([np.ones((3, 5, 5), bool)])
    with pytest.raises(VitportError, match=r"mask 0 was recorded in the shape \(3, 5, 5\), and is drawn in \(3, 2"):
        compare(model, port, X, masks=short)
    port.eval()
    layer = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    with pytest.raises(VitportError, match="One more random mask is drawn than the 0"), replay_masks(Masks()):
        layer(X)
    with pytest.raises(VitportError, match="masks of alpha_dropout are not recorded"), record_masks():
        torch.nn.AlphaDropout(0.5).train()(torch.ones(3))
