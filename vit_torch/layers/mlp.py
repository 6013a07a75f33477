"""The MLP of a block: plain, SwiGLU, or SwiGLU with packed weights."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from vit_torch.layers.activation import activation
from vit_torch.layers.initialization import make_linear
from vit_torch.layers.norm import NormLayer


class Mlp(nn.Module):
    """``fc2(act(fc1(x)))`` (Dosovitskiy et al. 2021, equation 3).

    Args:
        dim: width D of the tokens.
        hidden_dim: width M between the layers.
        act: name of the activation function.
        bias: whether the linear layers have biases.
        norm: makes a norm between activation and ``fc2`` (Shleifer et al. 2021); ``None`` for none.
        drop: dropout rate after the activation and after ``fc2``.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        act: str = "gelu",
        bias: bool = True,
        norm: NormLayer | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = make_linear(dim, hidden_dim, bias=bias)
        self.act = activation(act)
        self.drop1 = nn.Dropout(drop)
        self.norm = nn.Identity() if norm is None else norm(hidden_dim)
        self.fc2 = make_linear(hidden_dim, dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """(..., D) -> (..., D)."""
        x = self.act(self.fc1(x))  # (..., M)
        x = self.norm(self.drop1(x))
        return self.drop2(self.fc2(x))


class SwiGLU(nn.Module):
    """``fc2(act(fc1_g(x)) * fc1_x(x))`` (Shazeer 2020, section 2), SwiGLU where ``act`` is SiLU.

    Args:
        dim: width D of the tokens.
        hidden_dim: width M of gate and value.
        act: name of the gate's activation function.
        bias: whether the linear layers have biases.
        norm: makes a norm between product and ``fc2``; ``None`` for none.
        drop: dropout rate after the product and after ``fc2``.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        act: str = "silu",
        bias: bool = True,
        norm: NormLayer | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1_g = make_linear(dim, hidden_dim, bias=bias)
        self.fc1_x = make_linear(dim, hidden_dim, bias=bias)
        self.act = activation(act)
        self.drop1 = nn.Dropout(drop)
        self.norm = nn.Identity() if norm is None else norm(hidden_dim)
        self.fc2 = make_linear(hidden_dim, dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """(..., D) -> (..., D)."""
        x = self.act(self.fc1_g(x)) * self.fc1_x(x)  # (..., M)
        x = self.norm(self.drop1(x))
        return self.drop2(self.fc2(x))


class SwiGLUPacked(nn.Module):
    """:class:`SwiGLU` with gate and value in one layer ``fc1``, the gate first (DINOv2's giant model).

    Args:
        dim: width D of the tokens.
        hidden_dim: width M of gate and value; ``fc1`` is twice as wide.
        act: name of the gate's activation function.
        bias: whether the linear layers have biases.
        norm: makes a norm between product and ``fc2``; ``None`` for none.
        drop: dropout rate after the product and after ``fc2``.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        act: str = "silu",
        bias: bool = True,
        norm: NormLayer | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = make_linear(dim, 2 * hidden_dim, bias=bias)
        self.act = activation(act)
        self.drop1 = nn.Dropout(drop)
        self.norm = nn.Identity() if norm is None else norm(hidden_dim)
        self.fc2 = make_linear(hidden_dim, dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """(..., D) -> (..., D)."""
        gate, value = self.fc1(x).chunk(2, dim=-1)  # (..., M) each
        x = self.act(gate) * value
        x = self.norm(self.drop1(x))
        return self.drop2(self.fc2(x))
