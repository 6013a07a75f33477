"""Pairs without a mistake, whose two sides compute the same in other ways: more than a hundred."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from tests.vit_parity.porting.pairs import NAMES, pair
from tests.vit_parity.porting.pairs.pair import PortedModel, channels_last
from tests.vit_parity.porting.pairs.vit import HEADS, WIDTH
from tests.vit_parity.porting.ports import tokens
from vit_parity.porting import Porting, compare

Inputs = Any
WITH_BLOCKS = ("gpt2", "llama", "vit")
"""Pairs whose blocks are called one after another with one argument, and have attention of transformers."""


@dataclass(frozen=True)
class Sound:
    """One way to run a pair."""

    model: str
    batch: int
    compiled: bool = False
    dtype: str = "float32"
    blocks: str = "loop"
    """``loop``, ``scan`` or ``remat``."""
    attention: str = "sdpa"
    """Of transformers."""
    joint: bool = False
    """Whether the port has :class:`Joint`."""

    def __str__(self) -> str:
        words = ("jit" * self.compiled, self.dtype, self.blocks, self.attention, "joint" * self.joint)
        return "-".join([self.model, str(self.batch), *filter(None, words)])

    def compared(self) -> Porting:
        """Run it."""
        of = pair(self.model)
        a, b = copy.deepcopy(of.model), of.port(of.model)
        if self.attention != "sdpa":
            a.set_attn_implementation(self.attention)
        if self.joint:
            for block in b.blocks:
                block.attn = Joint(block.attn)
        if self.blocks == "scan":
            b.blocks = nnx.List([Scanned(list(b.blocks))])
        elif self.blocks == "remat":
            b.blocks = nnx.List([Checkpointed(block) for block in b.blocks])
        if self.dtype != "float32":
            a = a.to(getattr(torch, self.dtype))
            nnx.update(b, jax.tree.map(lambda leaf: leaf.astype(self.dtype), nnx.state(b)))
        if self.compiled:
            b.__class__ = type("Compiled", (type(b),), {"__call__": nnx.jit(type(b).__call__)})
        given, given_b = batched(of, self.batch)
        if self.dtype != "float32":  # in float64 too, both are given the same numbers
            given_b = jax.tree.map(self._rounded, channels_last(given if given_b is None else given_b))
            given = jax.tree.map(lambda leaf: np.asarray(self._rounded(leaf), leaf.dtype), given)
        return compare(a, b, given, inputs_b=given_b)

    def _rounded(self, leaf: np.ndarray) -> np.ndarray:
        return leaf.astype(self.dtype) if leaf.dtype == np.float32 else leaf


class Scanned(nnx.Module):
    """Equal blocks, stacked."""

    def __init__(self, blocks: list[Any]) -> None:
        parts = [nnx.split(block) for block in blocks]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state for _, state in parts))
        self.steps = nnx.merge(parts[0][0], stacked)

    def __call__(self, x: jax.Array) -> jax.Array:
        run: Any = nnx.scan(lambda x, step: step(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return run(x, self.steps)


class Checkpointed(nnx.Module):
    """A block whose activations are computed again for gradients."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __call__(self, x: jax.Array) -> jax.Array:
        run: Callable[..., jax.Array] = nnx.remat(lambda block, x: block(x))
        return run(self.block, x)


def batched(of: PortedModel, batch: int) -> tuple[Inputs, Inputs]:
    """Inputs of another batch size, from other random numbers."""
    rng = np.random.default_rng(batch)

    def fresh(leaf: np.ndarray) -> np.ndarray:
        shape = (batch, *leaf.shape[1:])
        if leaf.dtype.kind == "i":
            return rng.integers(0, 10, shape)
        return np.abs(tokens(*shape)) * 100 if leaf.ndim == 1 else rng.standard_normal(shape).astype(np.float32)

    given = jax.tree.map(fresh, of.inputs)
    return given, None if of.inputs_b is None else next(iter(given.values()))


class Joint(nnx.Module):
    """The attention of ViT with one product for queries, keys and values, by JAX's own kernel."""

    def __init__(self, attention: Any) -> None:
        parts = [attention.query, attention.key, attention.value]
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=nnx.Rngs(0))
        for name in ("kernel", "bias"):
            getattr(self.qkv, name)[...] = jnp.concatenate([getattr(part, name)[...] for part in parts], -1)
        self.out = attention.out

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.moveaxis(self.qkv(x).reshape(*x.shape[:2], 3, HEADS, -1), 2, 0)
        return self.out(jax.nn.dot_product_attention(q, k, v).reshape(x.shape))


def _all() -> Iterator[Sound]:
    for model, batch, compiled in product(NAMES, (1, 2, 3), (False, True)):
        yield Sound(model, batch, compiled)
    for model, dtype in product(NAMES, ("bfloat16", "float16")):
        yield Sound(model, 2, dtype=dtype)
    for model, blocks, batch, compiled in product(WITH_BLOCKS, ("scan", "remat"), (1, 3), (False, True)):
        yield Sound(model, batch, compiled, blocks=blocks)
    for model, batch, compiled, blocks in product(WITH_BLOCKS, (1, 3), (False, True), ("loop", "scan")):
        yield Sound(model, batch, compiled, blocks=blocks, attention="eager")
    for batch, compiled, blocks, attention in product((1, 3), (False, True), ("loop", "scan"), ("sdpa", "eager")):
        yield Sound("vit", batch, compiled, blocks=blocks, attention=attention, joint=True)


SOUND = tuple(_all())
