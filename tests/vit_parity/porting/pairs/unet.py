"""A U-Net of group norms with a resized skip, as a user writes it in PyTorch, and its port."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import torch
from flax import nnx
from torch import nn

from tests.vit_parity.porting.pairs.pair import Planted, PortedModel, attributes
from tests.vit_parity.porting.ports import arrays, carried, filled, tokens

NARROW, WIDE, GROUPS = 8, 16, 4


class TorchPart(nn.Module):
    def __init__(self, given: int, made: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, made, 3, stride, 1)
        self.norm = nn.GroupNorm(GROUPS, made)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class TorchUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.down = TorchPart(3, NARROW), TorchPart(NARROW, WIDE, 2)
        self.middle = TorchPart(WIDE, WIDE)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.join, self.head = TorchPart(WIDE + NARROW, NARROW), nn.Conv2d(NARROW, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = self.start(x)
        return self.head(self.join(torch.cat([self.up(self.middle(self.down(kept))), kept], 1)))


class Part(nnx.Module):
    def __init__(self, given: int, made: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(given, made, (3, 3), (stride, stride), padding=(1, 1), rngs=rngs)
        self.norm = nnx.GroupNorm(made, num_groups=GROUPS, epsilon=1e-5, rngs=rngs)
        self.act: Callable[[jax.Array], jax.Array] = nnx.silu

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.act(self.norm(self.conv(x)))


class Resize(nnx.Module):
    def __init__(self) -> None:
        self.method: Callable[[jax.Array, tuple[int, ...]], jax.Array] = lambda x, to: jax.image.resize(x, to, "linear")

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        return self.method(x, (batch, 2 * height, 2 * width, channels))


class UNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.start, self.down = Part(3, NARROW, 1, rngs), Part(NARROW, WIDE, 2, rngs)
        self.middle, self.up = Part(WIDE, WIDE, 1, rngs), Resize()
        self.join, self.head = Part(WIDE + NARROW, NARROW, 1, rngs), nnx.Conv(NARROW, 2, (1, 1), rngs=rngs)
        self.skip_first = False

    def __call__(self, x: jax.Array) -> jax.Array:
        kept = self.start(x)
        parts = [self.up(self.middle(self.down(kept))), kept]
        return self.head(self.join(jnp.concatenate(parts[::-1] if self.skip_first else parts, -1)))


def _layers() -> dict[str, str]:
    found = {"head": "head"}
    for part in ("start", "down", "middle", "join"):
        found |= {f"{part}.conv": f"{part}.conv", f"{part}.norm": f"{part}.norm"}
    return found


LAYERS = _layers()


def ported(model: torch.nn.Module) -> UNet:
    tensors = arrays(model)
    mirror = UNet(nnx.Rngs(0))
    carried(mirror, tensors, LAYERS)
    return mirror


def _corners(x: jax.Array, to: tuple[int, ...]) -> jax.Array:
    """Bilinear, the corners of both grids in the same place."""
    scale = jnp.array([(to[axis] - 1) / (x.shape[axis] - 1) for axis in (1, 2)])
    return jax.image.scale_and_translate(x, to, (1, 2), scale, 0.5 - 0.5 * scale, "linear", antialias=False)


def _own() -> list[Planted]:
    same = attributes("down.conv", padding="SAME")
    found = [Planted("SAME", same, "down.conv", "pads by (0, 2) in height and (0, 2) in width")]
    resized = {"nearest": "resizes by the nearest pixel, not bilinear",
               "cubic": "resizes bicubic (a = -0.5), not bilinear"}  # fmt: skip
    for method, told in resized.items():
        other = attributes("up", method=lambda x, to, method=method: jax.image.resize(x, to, method))
        found.append(Planted(method, other, "up", told))
    found.append(Planted("corners", attributes("up", method=_corners), "up",
                         "resizes bilinear with aligned corners, not bilinear"))  # fmt: skip
    for part in ("start", "down", "middle", "join"):
        told = {"ReLU": nnx.relu, "tanh GELU": nnx.gelu, "no activation": lambda x: x, "sigmoid": nnx.sigmoid}
        found += [Planted(name, attributes(part, act=act), part, f"uses {name} instead of SiLU")
                  for name, act in told.items()]  # fmt: skip
    return [*found, Planted("skip first", attributes("", skip_first=True), "join",
                            "has the thirds of axis 1 in the order (2, 0, 1)")]  # fmt: skip


PAIR = PortedModel("U-Net", lambda: filled(TorchUNet()).eval(), ported, tokens(2, 3, 12, 20), LAYERS, _own)
