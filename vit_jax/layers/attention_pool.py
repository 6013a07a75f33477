"""Pooling by attention: a learned query attends to the tokens."""

from __future__ import annotations

from flax import nnx
from jax import Array
from jaxtyping import Float

from vit_jax.layers.attention import head_width
from vit_jax.layers.initialization import Init, make_linear, make_tokens
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import NormLayer
from vit_jax.layers.xla.attention import softmax
from vit_jax.layers.xla.packed import unpacked


class AttentionPool(nnx.Module):
    """Multi-head attention pooling, MAP (Lee et al. 2019, section 3.2; for ViT: Zhai et al. 2022, section 3).

    Args:
        dim: width D of the tokens; a multiple of ``num_heads``.
        num_heads: number of heads h.
        hidden_dim: hidden width M of the MLP.
        norm: makes the norm before the MLP.
        act: name of the MLP's activation function.
        init: random numbers and dtypes; the softmax is computed in at least float32.

    Raises:
        VitportError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self, dim: int, num_heads: int, hidden_dim: int, norm: NormLayer, act: str = "gelu", *, init: Init
    ) -> None:
        self.num_heads = num_heads
        self.head_dim = head_width(dim, num_heads)
        self.scale = self.head_dim**-0.5
        self.latent = make_tokens(1, dim, init=init)
        self.q = make_linear(dim, dim, init=init)
        self.kv = make_linear(dim, 2 * dim, init=init)
        self.proj = make_linear(dim, dim, init=init)
        self.norm = norm(dim)
        self.mlp = Mlp(dim, hidden_dim, act, init=init)

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        """(B, N, D) -> (B, D)."""
        B, _, D = x.shape
        q = self.q(self.latent[...]).reshape(1, 1, self.num_heads, self.head_dim).swapaxes(1, 2)  # (1, h, 1, d)
        (kv,) = unpacked(self.kv, x, (2, self.num_heads, self.head_dim))  # (B, N, 2, h, d)
        k, v = kv.transpose(2, 0, 3, 1, 4)  # (B, h, N, d) each
        logits = (q * self.scale) @ k.swapaxes(-2, -1)  # (B, h, 1, N)
        weights = softmax(logits)
        x = (weights @ v).reshape(B, D)
        x = self.proj(x)
        return x + self.mlp(self.norm(x))
