"""The MLP of a block: plain, SwiGLU, or SwiGLU with packed weights."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from vit_torch.layers.activation import activation
from vit_torch.layers.initialization import make_linear
from vit_torch.layers.norm import NormLayer
from vit_torch.layers.qkv import unpacked


class Mlp(nn.Module):
    """``fc2(act(fc1(x)))`` (Dosovitskiy et al. 2021, equation 3).

    Args:
        dim: width D of the tokens.
        hidden_dim: width M of the hidden layer.
        act: name of the activation function; ``None`` for ``usual_act``.
        bias: whether the linear layers have biases.
        norm: makes a norm before ``fc2`` (Shleifer et al. 2021); ``None`` for none.
        drop: dropout rate of the hidden layer and after ``fc2``.
        outputs: width of what ``fc2`` gives; ``None`` for D.
    """

    usual_act: ClassVar[str] = "gelu"

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        act: str | None = None,
        bias: bool = True,
        norm: NormLayer | None = None,
        drop: float = 0.0,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.make_first(dim, hidden_dim, bias=bias)
        self.act = activation(act or self.usual_act)
        self.drop1 = nn.Dropout(drop)
        self.norm = nn.Identity() if norm is None else norm(hidden_dim)
        self.fc2 = make_linear(hidden_dim, outputs or dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def make_first(self, dim: int, hidden_dim: int, *, bias: bool) -> None:
        """Make what reads the tokens."""
        self.fc1 = make_linear(dim, hidden_dim, bias=bias)

    def hidden(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch M"]:
        """(..., D) -> the hidden layer, (..., M)."""
        return self.act(self.fc1(x))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch O"]:
        """(..., D) -> (..., D)."""
        x = self.norm(self.drop1(self.hidden(x)))
        return self.drop2(self.fc2(x))


class SwiGLU(Mlp):
    """``fc2(act(fc1_g(x)) * fc1_x(x))`` (Shazeer 2020, section 2), with the arguments of :class:`Mlp`."""

    usual_act: ClassVar[str] = "silu"

    def make_first(self, dim: int, hidden_dim: int, *, bias: bool) -> None:
        """Make what reads the tokens: gate and value."""
        self.fc1_g = make_linear(dim, hidden_dim, bias=bias)
        self.fc1_x = make_linear(dim, hidden_dim, bias=bias)

    def hidden(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch M"]:
        """(..., D) -> the hidden layer, (..., M)."""
        return self.act(self.fc1_g(x)) * self.fc1_x(x)


class SwiGLUPacked(Mlp):
    """:class:`SwiGLU` with gate and value in one layer ``fc1``, the gate first (DINOv2's giant model)."""

    usual_act: ClassVar[str] = "silu"

    def make_first(self, dim: int, hidden_dim: int, *, bias: bool) -> None:
        """Make what reads the tokens: gate and value side by side."""
        self.hidden_dim = hidden_dim
        self.fc1 = make_linear(dim, 2 * hidden_dim, bias=bias)

    def hidden(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch M"]:
        """(..., D) -> the hidden layer, (..., M)."""
        gate, value = unpacked(self.fc1, x, (self.hidden_dim,), (self.hidden_dim,))  # (..., M) each
        return self.act(gate) * value
