"""Biases of the attention's logits that a small network computes from relative positions."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vit_spec import ViTConfig
from vit_spec.vit.relative import log_offsets, shares
from vit_torch.layers.constant import make_constant, make_table
from vit_torch.layers.mlp import Mlp


class BiasNetwork(nn.Module):
    """The bias of each head from log-spaced offsets, without one for prefix tokens (timm's ``RelPosMlp``).

    timm drops an eighth of its hidden units in training; here none are dropped.

    Args:
        config: the model that the layer belongs to.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        c = config
        assert c.relative_hidden_dim is not None
        self.prefix = c.num_prefix_tokens
        self.shares = make_constant(shares(c.grid_size))
        self.coordinates = make_table(log_offsets(c.grid_size))
        self.mlp = Mlp(2, c.relative_hidden_dim, act="relu", outputs=c.num_heads)

    def forward(self) -> Float[Tensor, "1 h N N"]:
        """What is added to the logits."""
        table = self.mlp(self.coordinates[:].to(self.mlp.fc1.weight))  # (offsets, h)
        patches = table[self.shares[:, None] - self.shares + self.shares[-1]]  # (P, P, h)
        bias = functional.pad(patches.permute(2, 0, 1), (self.prefix, 0, self.prefix, 0))
        return bias[None]


def make_bias_network(config: ViTConfig) -> BiasNetwork | None:
    """What computes biases by relative position, if the model does."""
    return None if config.relative_hidden_dim is None else BiasNetwork(config)
