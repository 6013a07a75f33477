"""Differential attention (Ye et al. 2024, "Differential Transformer", section 2.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional

from vit_spec import ViTConfig
from vit_spec.vit.differential import EPS, initial_share
from vit_torch.layers.initialization import make_share


class Difference(nn.Module):
    """From queries, keys and values to twice as many heads, and from these to the difference of each pair.

    The share of the second softmax is ``exp(q1 k1) - exp(q2 k2)`` and a number that grows with the block.

    Args:
        config: the model that the layer belongs to.
        index: number of the block, from 0.
    """

    def __init__(self, config: ViTConfig, index: int) -> None:
        super().__init__()
        c = config
        self.num_heads = c.num_heads
        self.half_dim = c.qk_dim
        self.initial = initial_share(index)
        self.lambda_q1 = make_share(c.qk_dim)
        self.lambda_k1 = make_share(c.qk_dim)
        self.lambda_q2 = make_share(c.qk_dim)
        self.lambda_k2 = make_share(c.qk_dim)
        self.sub_norm = nn.RMSNorm(c.head_dim, eps=EPS)

    def halves(self, x: Float[Tensor, "B h N d"]) -> Float[Tensor, "B h N 2 d/2"]:
        """Queries or keys, (B, h, N, d) -> those of the two softmaxes, (B, h, N, 2, d / 2)."""
        halves = 2, self.half_dim
        return x.reshape(x.shape[:-1] + halves)  # torch.fx cannot unpack a shape

    def doubled(
        self, q: Float[Tensor, "B h N 2 e"], k: Float[Tensor, "B h N 2 e"], v: Float[Tensor, "B h N d"]
    ) -> tuple[Float[Tensor, "B 2*h N d"], Float[Tensor, "B 2*h N d"], Float[Tensor, "B 2*h N d"]]:
        """Heads of the first softmax, then those of the second, as wide as values: kernels need that.

        Zeros in place of the other half change no dot product.
        """
        first = functional.pad(q[..., 0, :], (0, self.half_dim))  # (B, h, N, d)
        second = functional.pad(q[..., 1, :], (self.half_dim, 0))
        k = k.reshape(v.shape)
        q = torch.cat([first, second], dim=1)
        return q, torch.cat([k, k], dim=1), torch.cat([v, v], dim=1)

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E/2"]:
        """The doubled heads side by side, (B, N, 2 D) -> (B, N, D)."""
        first, second = x.chunk(2, dim=-1)  # (B, N, D) each
        y = first - self.share().to(x.dtype) * second
        by_head = self.num_heads, -1
        heads = y.reshape(y.shape[:-1] + by_head)  # (B, N, h, d)
        return ((1 - self.initial) * self.sub_norm(heads)).reshape(y.shape)

    def share(self) -> Float[Tensor, ""]:
        """Of the second softmax, in at least float32."""
        return _share(self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2, self.initial)


@fx.wrap  # symbolic tracing records the call, because it cannot follow what depends on a dtype
def _share(q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, initial: float) -> Tensor:
    precise = torch.promote_types(q1.dtype, torch.float32)
    q1, k1, q2, k2 = (it.to(precise) for it in (q1, k1, q2, k2))
    return torch.exp((q1 * k1).sum()) - torch.exp((q2 * k2).sum()) + initial


def make_difference(config: ViTConfig, index: int) -> Difference | None:
    """What makes attention differential, if the model's is."""
    return Difference(config, index) if config.differential else None
