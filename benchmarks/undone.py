"""The trainer's own step with one of the things undone that make it quick on CPUs, to see what each is worth.

What is undone holds for the process: each side has one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

import vit_jax.layers.xla.rows
import vit_jax.training.step.forward as forward
from benchmarks import sides_jax
from benchmarks.side import Side
from vit_jax.layers.activation import _FUNCTIONS


def train(without: str, **told: Any) -> Side:
    """:func:`benchmarks.sides_jax.train`.

    Args:
        without: a name of ``UNDONE``.
        told: its arguments.
    """
    UNDONE[without]()
    return sides_jax.train(**told)


def _rows() -> None:
    """Tokens (B, N, D), as they come, in every layer and sum."""
    vit_jax.layers.xla.rows.as_rows = lambda x: x


def _barrier() -> None:
    """The same, and XLA is asked not to fuse across blocks."""
    _rows()
    run = forward._run_block

    def apart(static: Any, x: jax.Array, *block: Any) -> jax.Array:
        return run(static, jax.lax.optimization_barrier(x), *block)

    forward._run_block = apart


def _norm() -> None:
    """Both factors of LayerNorm in one, as ``nnx.LayerNorm`` has it; for float32 and norms with a bias."""

    def call(self: Any, x: jax.Array) -> jax.Array:
        rows = vit_jax.layers.xla.rows.as_rows(x)
        centred = rows - rows.mean(axis=-1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + self.epsilon) * self.scale[...]
        return (centred * factor + self.bias[...]).reshape(x.shape)

    vit_jax.layers.xla.rows.LayerNorm.__call__ = call


def _gelu() -> None:
    """``jax.nn.gelu``: the complementary error function, differentiated step by step."""
    _FUNCTIONS["gelu"] = lambda x: jax.nn.gelu(x, approximate=False)


UNDONE: Mapping[str, Callable[[], None]] = {"rows": _rows, "barrier": _barrier, "norm": _norm, "gelu": _gelu}
