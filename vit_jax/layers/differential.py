"""Differential attention (Ye et al. 2024, "Differential Transformer", section 2.1)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.initialization import Init, make_share
from vit_jax.layers.xla.rows import RMSNorm
from vit_spec import ViTConfig
from vit_spec.vit.differential import EPS, initial_share


class Difference(nnx.Module):
    """From queries, keys and values to twice as many heads, and from these to the difference of each pair.

    The share of the second softmax is ``exp(q1 k1) - exp(q2 k2)`` and a number that grows with the block.

    Args:
        config: the model that the layer belongs to.
        index: number of the block, from 0.
        init: random numbers and dtypes.
    """

    def __init__(self, config: ViTConfig, index: int, *, init: Init) -> None:
        c = config
        self.num_heads = c.num_heads
        self.half_dim = c.qk_dim
        self.initial = initial_share(index)
        self.lambda_q1 = make_share(c.qk_dim, init=init)
        self.lambda_k1 = make_share(c.qk_dim, init=init)
        self.lambda_q2 = make_share(c.qk_dim, init=init)
        self.lambda_k2 = make_share(c.qk_dim, init=init)
        self.sub_norm = RMSNorm(c.head_dim, init.dtype, init.param_dtype, eps=EPS)

    def halves(self, x: Float[Array, "B h N d"]) -> Float[Array, "B h N 2 d/2"]:
        """Queries or keys, (B, h, N, d) -> those of the two softmaxes, (B, h, N, 2, d / 2)."""
        halves = 2, self.half_dim
        return x.reshape(x.shape[:-1] + halves)

    def doubled(
        self, q: Float[Array, "B h N 2 e"], k: Float[Array, "B h N 2 e"], v: Float[Array, "B h N d"]
    ) -> tuple[Float[Array, "B 2*h N d"], Float[Array, "B 2*h N d"], Float[Array, "B 2*h N d"]]:
        """Heads of the first softmax, then those of the second, as wide as values: kernels need that.

        Zeros in place of the other half change no dot product.
        """
        still = (0, 0), (0, 0), (0, 0)
        first = jnp.pad(q[..., 0, :], (*still, (0, self.half_dim)))  # (B, h, N, d)
        second = jnp.pad(q[..., 1, :], (*still, (self.half_dim, 0)))
        k = k.reshape(v.shape)
        q = jnp.concatenate([first, second], axis=1)
        return q, jnp.concatenate([k, k], axis=1), jnp.concatenate([v, v], axis=1)

    def __call__(self, x: Float[Array, "B N E"]) -> Float[Array, "B N E/2"]:
        """The doubled heads side by side, (B, N, 2 D) -> (B, N, D)."""
        first, second = jnp.split(x, 2, axis=-1)  # (B, N, D) each
        y = first - self.share().astype(x.dtype) * second
        by_head = self.num_heads, -1
        heads = y.reshape(y.shape[:-1] + by_head)  # (B, N, h, d)
        return ((1 - self.initial) * self.sub_norm(heads)).reshape(y.shape)

    def share(self) -> Float[Array, ""]:
        """Of the second softmax, in at least float32."""
        return _share(self.lambda_q1[...], self.lambda_k1[...], self.lambda_q2[...], self.lambda_k2[...], self.initial)


def _share(q1: Array, k1: Array, q2: Array, k2: Array, initial: float) -> Array:
    precise = jnp.promote_types(q1.dtype, jnp.float32)
    q1, k1, q2, k2 = (it.astype(precise) for it in (q1, k1, q2, k2))
    return jnp.exp((q1 * k1).sum()) - jnp.exp((q2 * k2).sum()) + initial


def make_difference(config: ViTConfig, index: int, *, init: Init) -> Difference | None:
    """What makes attention differential, if the model's is."""
    return Difference(config, index, init=init) if config.differential else None
