"""Rotary positions: queries and keys turned by angles that grow with the position (Su et al. 2021, RoFormer)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.constant import make_table
from vit_jax.layers.initialization import Init, make_frequencies
from vit_spec import ViTConfig
from vit_spec.vit.rotary import MixedRotary, Pairs, places, turns


class FixedTurns(nnx.Module):
    """Turns by the table of ``vit_spec.vit.rotary.turns``.

    Args:
        config: the model that the layer belongs to.
    """

    def __init__(self, config: ViTConfig) -> None:
        c = config
        assert c.rotary is not None and not isinstance(c.rotary, MixedRotary)
        self.pairs: Pairs = c.rotary.pairs
        cos, sin = turns(c.rotary, c.grid_size, c.head_dim, c.num_prefix_tokens)
        self.cos = make_table(cos)
        self.sin = make_table(sin)

    def __call__(self, x: Float[Array, "B h N d"]) -> Float[Array, "B h N d"]:
        """Queries or keys, (B, h, N, d) -> (B, h, N, d); computed in at least float32."""
        return turned(x, self.cos[:], self.sin[:], self.pairs)


class LearnedTurns(nnx.Module):
    """Turns by ``column * freqs[0] + row * freqs[1]``, which each head learns (Heo et al. 2024, section 3.2).

    Args:
        config: the model that the layer belongs to.
        init: random numbers and dtypes.
    """

    def __init__(self, config: ViTConfig, *, init: Init) -> None:
        c = config
        assert isinstance(c.rotary, MixedRotary)
        self.pairs: Pairs = c.rotary.pairs
        self.places = make_table(places(c.grid_size, c.num_prefix_tokens))
        self.freqs = make_frequencies(c.num_heads, c.head_dim, c.rotary.theta, init=init)

    def __call__(self, x: Float[Array, "B h N d"]) -> Float[Array, "B h N d"]:
        """Queries or keys, (B, h, N, d) -> (B, h, N, d); computed in at least float32."""
        precise = _precise(self.freqs[...])
        places, freqs = self.places[:].astype(precise), self.freqs[...].astype(precise)
        angles = places[:, :1] * freqs[0, :, None] + places[:, 1:] * freqs[1, :, None]  # (h, N, d / 2)
        return turned(x, jnp.cos(angles), jnp.sin(angles), self.pairs)


def make_rotary(config: ViTConfig, *, init: Init) -> Callable[[Any], Any]:
    """What turns queries and keys; the identity where the config has no rotary positions."""
    if config.rotary is None:
        return nnx.identity
    if config.rotary.kind == "mixed":
        return LearnedTurns(config, init=init)
    return FixedTurns(config)


def turned(
    x: Float[Array, "B h N d"], cos: Float[Array, "*h N d/2"], sin: Float[Array, "*h N d/2"], pairs: Pairs
) -> Float[Array, "B h N d"]:
    """Each pair of channels, (a, b), as ``(a cos - b sin, b cos + a sin)``; computed in at least float32."""
    dtype, precise = x.dtype, _precise(x)
    x, cos, sin = (part.astype(precise) for part in (x, cos, sin))
    if pairs == "halves":
        a, b = jnp.split(x, 2, axis=-1)  # (B, h, N, d / 2) each
        y = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    else:
        both = x.reshape(*x.shape[:-1], -1, 2)  # (B, h, N, d / 2, 2)
        a, b = both[..., 0], both[..., 1]
        y = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)
    return y.astype(dtype)


def _precise(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)
