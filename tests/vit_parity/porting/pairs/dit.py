"""A diffusion transformer (Peebles & Xie 2023) as a user writes it in PyTorch, and its port."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from tests.vit_parity.porting.pairs.pair import NO_SCALE, Planted, PortedModel, attributes
from tests.vit_parity.porting.ports import arrays, carried, filled, tokens

WIDTH, HEADS, DEPTH, CLASSES = 24, 4, 2, 10


class TimeSteps(nn.Module):
    """Sines and cosines of a time, then two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        rates = torch.exp(-math.log(10000.0) * torch.arange(8, dtype=t.dtype) / 8)
        angles = t[:, None] * rates
        return self.second(torch.nn.functional.silu(self.first(torch.cat([angles.cos(), angles.sin()], -1))))


class TorchBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-6)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-6)
        self.fc1, self.act, self.fc2 = nn.Linear(WIDTH, 48), nn.GELU(approximate="tanh"), nn.Linear(48, WIDTH)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(c)[:, None].chunk(6, -1)
        q, k, v = self.qkv(self.norm1(x) * (1 + scale) + shift).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate * self.proj(mixed)
        return x + gate2 * self.fc2(self.act(self.fc1(self.norm2(x) * (1 + scale2) + shift2)))


class TorchDiT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(4, WIDTH, 2, 2)
        self.positions = nn.Parameter(torch.zeros(1, 12, WIDTH))
        self.times, self.labels = TimeSteps(), nn.Embedding(CLASSES + 1, WIDTH)
        self.blocks = nn.ModuleList(TorchBlock() for _ in range(DEPTH))
        self.last_norm = nn.LayerNorm(WIDTH, elementwise_affine=False, eps=1e-6)
        self.last_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH))
        self.last = nn.Linear(WIDTH, 16)

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        c = self.times(t) + self.labels(y)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.last_modulation(c)[:, None].chunk(2, -1)
        return self.last(self.last_norm(x) * (1 + scale) + shift)


class Times(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.second = nnx.Linear(16, WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.base, self.swapped = 10000.0, False

    def __call__(self, t: jax.Array) -> jax.Array:
        angles = t[:, None] * jnp.exp(-jnp.log(self.base) * jnp.arange(8) / 8)
        parts = [jnp.cos(angles), jnp.sin(angles)]
        return self.second(nnx.silu(self.first(jnp.concatenate(parts[::-1] if self.swapped else parts, -1))))


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = (nnx.LayerNorm(WIDTH, epsilon=1e-6, use_bias=False, use_scale=False, rngs=rngs)
                                  for _ in range(2))  # fmt: skip
        self.qkv, self.proj = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.fc1, self.fc2 = nnx.Linear(WIDTH, 48, rngs=rngs), nnx.Linear(48, WIDTH, rngs=rngs)
        self.modulation = nnx.Linear(WIDTH, 6 * WIDTH, rngs=rngs)
        self.act, self.silu, self.one, self.order = nnx.gelu, nnx.silu, 1.0, (0, 1, 2, 3, 4, 5)
        self.scale, self.causal = (WIDTH // HEADS) ** -0.5, False

    def __call__(self, x: jax.Array, c: jax.Array) -> jax.Array:
        parts = jnp.split(self.modulation(self.silu(c))[:, None], 6, -1)
        shift, scale, gate, shift2, scale2, gate2 = (parts[at] for at in self.order)
        joint = self.qkv(self.norm1(x) * (self.one + scale) + shift)
        q, k, v = jnp.moveaxis(joint.reshape(*x.shape[:2], 3, HEADS, -1), 2, 0)
        mixed = jax.nn.dot_product_attention(q, k, v, scale=self.scale, is_causal=self.causal)
        x = x + gate * self.proj(mixed.reshape(x.shape))
        return x + gate2 * self.fc2(self.act(self.fc1(self.norm2(x) * (self.one + scale2) + shift2)))


class DiT(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Conv(4, WIDTH, (2, 2), (2, 2), padding="VALID", rngs=rngs)
        self.positions = nnx.Param(jnp.zeros((1, 12, WIDTH)))
        self.times, self.labels = Times(rngs), nnx.Embed(CLASSES + 1, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(DEPTH)])
        self.last_norm = nnx.LayerNorm(WIDTH, epsilon=1e-6, use_bias=False, use_scale=False, rngs=rngs)
        self.last_modulation, self.last = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs), nnx.Linear(WIDTH, 16, rngs=rngs)

    def __call__(self, x: jax.Array, t: jax.Array, y: jax.Array) -> jax.Array:
        x = self.embed(x).reshape(x.shape[0], -1, WIDTH) + self.positions[...]
        c = self.times(t) + self.labels(y)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = jnp.split(self.last_modulation(nnx.silu(c))[:, None], 2, -1)
        return self.last(self.last_norm(x) * (1 + scale) + shift)


def _layers() -> dict[str, str]:
    found = {"embed": "embed", "times.first": "times.first", "times.second": "times.second", "labels": "labels",
             "last_norm": "last_norm", "last_modulation": "last_modulation.1", "last": "last"}  # fmt: skip
    for at in range(DEPTH):
        names = ("norm1", "qkv", "proj", "norm2", "fc1", "fc2")
        found |= {f"blocks.{at}.{name}": f"blocks.{at}.{name}" for name in names}
        found[f"blocks.{at}.modulation"] = f"blocks.{at}.modulation.1"
    return found


LAYERS = _layers()


def ported(model: torch.nn.Module) -> DiT:
    tensors = arrays(model)
    mirror = DiT(nnx.Rngs(0))
    mirror.positions[...] = tensors["positions"]
    carried(mirror, tensors, LAYERS)
    return mirror


def _own() -> list[Planted]:
    found = [
        Planted("base of the times", attributes("times", base=1000.0), "times.first"),
        Planted("sines first", attributes("times", swapped=True), "times.first",
                "has the halves of axis 1 in the order (1, 0)"),
    ]  # fmt: skip
    for at in range(DEPTH):
        ours, fc2 = f"blocks.{at}", f"blocks.{at}.fc2"
        found += [
            Planted("erf GELU", attributes(ours, act=lambda x: nnx.gelu(x, approximate=False)), fc2,
                    "uses GELU instead of tanh GELU"),
            NO_SCALE.at(ours, f"{ours}.proj"),
            Planted("masked", attributes(ours, causal=True), f"{ours}.proj", "masks later tokens"),
            Planted("no SiLU", attributes(ours, silu=lambda x: x), f"{ours}.modulation.1",
                    "uses no activation instead of SiLU"),
            Planted("scale without 1", attributes(ours, one=0.0), f"{ours}.qkv"),
            Planted("scale for shift", attributes(ours, order=(1, 0, 2, 3, 4, 5)), f"{ours}.qkv"),
            Planted("gate for gate", attributes(ours, order=(0, 1, 5, 3, 4, 2)), f"{ours}.norm2"),
        ]  # fmt: skip
    return found


INPUTS = {"x": tokens(2, 4, 6, 8), "t": np.array([3.0, 411.0], np.float32), "y": np.array([1, 7])}
PAIR = PortedModel("diffusion transformer", lambda: filled(TorchDiT()).eval(), ported, INPUTS, LAYERS, _own)
