"""Rotary positions: queries and keys turned by angles that grow with the position (Su et al. 2021, RoFormer)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from vit_spec import ViTConfig
from vit_spec.vit.rotary import MixedRotary, Pairs, places, turns
from vit_torch.layers.constant import make_table
from vit_torch.layers.initialization import make_frequencies


class FixedTurns(nn.Module):
    """Turns by the table of ``vit_spec.vit.rotary.turns``.

    Args:
        config: the model that the layer belongs to.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        c = config
        assert c.rotary is not None and not isinstance(c.rotary, MixedRotary)
        self.pairs: Pairs = c.rotary.pairs
        cos, sin = turns(c.rotary, c.grid_size, c.head_dim, c.num_prefix_tokens)
        self.cos = make_table(cos)
        self.sin = make_table(sin)

    def forward(self, x: Float[Tensor, "B h N d"]) -> Float[Tensor, "B h N d"]:
        """Queries or keys, (B, h, N, d) -> (B, h, N, d); computed in at least float32."""
        return turned(x, self.cos[:], self.sin[:], self.pairs)


class LearnedTurns(nn.Module):
    """Turns by ``column * freqs[0] + row * freqs[1]``, which each head learns (Heo et al. 2024, section 3.2).

    Args:
        config: the model that the layer belongs to.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        c = config
        assert isinstance(c.rotary, MixedRotary)
        self.pairs: Pairs = c.rotary.pairs
        self.places = make_table(places(c.grid_size, c.num_prefix_tokens))
        self.freqs = make_frequencies(c.num_heads, c.head_dim, c.rotary.theta)

    def forward(self, x: Float[Tensor, "B h N d"]) -> Float[Tensor, "B h N d"]:
        """Queries or keys, (B, h, N, d) -> (B, h, N, d); computed in at least float32."""
        precise = _precise(self.freqs)
        places, freqs = self.places[:].to(self.freqs.device, precise), self.freqs.to(precise)
        angles = places[:, :1] * freqs[0, :, None] + places[:, 1:] * freqs[1, :, None]  # (h, N, d / 2)
        return turned(x, torch.cos(angles), torch.sin(angles), self.pairs)


def make_rotary(config: ViTConfig) -> nn.Module:
    """What turns queries and keys; the identity where the config has no rotary positions."""
    if config.rotary is None:
        return nn.Identity()
    if config.rotary.kind == "mixed":
        return LearnedTurns(config)
    return FixedTurns(config)


@fx.wrap  # symbolic tracing records the call, because it cannot follow what depends on a shape
def turned(
    x: Float[Tensor, "B h N d"], cos: Float[Tensor, "*h N d/2"], sin: Float[Tensor, "*h N d/2"], pairs: Pairs
) -> Float[Tensor, "B h N d"]:
    """Each pair of channels, (a, b), as ``(a cos - b sin, b cos + a sin)``; computed in at least float32."""
    dtype, precise = x.dtype, _precise(x)
    x, cos, sin = (part.to(x.device, precise) for part in (x, cos, sin))
    if pairs == "halves":
        a, b = x.chunk(2, dim=-1)  # (B, h, N, d / 2) each
        y = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    else:
        both = x.reshape(*x.shape[:-1], -1, 2)  # (B, h, N, d / 2, 2)
        a, b = both[..., 0], both[..., 1]
        y = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).reshape(x.shape)
    return y.to(dtype)


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
