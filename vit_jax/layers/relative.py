"""Biases of the attention's logits that a small network computes from relative positions."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.constant import make_constant, make_table
from vit_jax.layers.initialization import Init
from vit_jax.layers.mlp import Mlp
from vit_spec import ViTConfig
from vit_spec.vit.relative import log_offsets, shares


class BiasNetwork(nnx.Module):
    """The bias of each head from log-spaced offsets, without one for prefix tokens (timm's ``RelPosMlp``).

    timm drops an eighth of its hidden units in training; here none are dropped.

    Args:
        config: the model that the layer belongs to.
        init: random numbers and dtypes; biases are computed in at least float32.
    """

    def __init__(self, config: ViTConfig, *, init: Init) -> None:
        c = config
        assert c.relative_hidden_dim is not None
        self.prefix = c.num_prefix_tokens
        self.shares = make_constant(shares(c.grid_size))
        self.coordinates = make_table(log_offsets(c.grid_size))
        self.mlp = Mlp(2, c.relative_hidden_dim, act="relu", outputs=c.num_heads, init=init.in_float32)
        self.dtype = init.dtype

    def __call__(self) -> Float[Array, "1 h N N"]:
        """What is added to the logits."""
        table = self.mlp(self.coordinates[:].astype(self.mlp.fc1.dtype))  # (offsets, h)
        patches = table[self.shares[:, None] - self.shares[:] + self.shares[-1]]  # (P, P, h)
        bias = jnp.pad(patches.transpose(2, 0, 1), ((0, 0), (self.prefix, 0), (self.prefix, 0)))
        return bias[None].astype(self.dtype)


def make_bias_network(config: ViTConfig, *, init: Init) -> BiasNetwork | None:
    """What computes biases by relative position, if the model does."""
    return None if config.relative_hidden_dim is None else BiasNetwork(config, init=init)
