"""``vit_jax/toy``."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from tests.toy_family.spec import ToyConfig
from vit_jax import Attention, DropPath, Init, Mlp, PatchEmbed, VisionModel
from vit_jax.layers.initialization import make_linear
from vit_jax.layers.xla.rows import LayerNorm


class Block(nnx.Module):
    def __init__(self, c: ToyConfig, D: int, heads: int, drop_path: float, init: Init) -> None:
        self.norm1, self.norm2 = (LayerNorm(D, init.dtype, init.param_dtype, eps=1e-6) for _ in range(2))
        self.attn = Attention(D, heads, qkv_bias=True, attn_drop=c.attn_drop_rate, proj_drop=c.drop_rate, init=init)
        self.mlp = Mlp(D, 2 * D, drop=c.drop_rate, init=init)
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: Array, *, rngs: Any = None) -> Array:
        x = x + self.drop_path(self.attn(self.norm1(x), rngs=rngs), rngs=rngs)
        return x + self.drop_path(self.mlp(self.norm2(x), rngs=rngs), rngs=rngs)


class Stage(nnx.Module):
    def __init__(self, c: ToyConfig, at: int, rates: Any, init: Init) -> None:
        D = c.widths[at]
        if at:
            self.merge = make_linear(D, D, bias=False, init=init)
        self.blocks = nnx.List(Block(c, D, c.heads[at], next(rates), init) for _ in range(c.depths[at]))


class Toy(VisionModel[ToyConfig]):
    def __init__(self, config: ToyConfig, *, rngs: nnx.Rngs, dtype: DTypeLike, param_dtype: DTypeLike) -> None:
        super().__init__(config, dtype=dtype, param_dtype=param_dtype)
        c, rates, init = config, iter(config.drop_path_rates), Init(rngs, dtype, param_dtype)
        self.patch_embed = PatchEmbed(c.image_size, c.patch_size, c.in_channels, c.width, init=init)
        self.levels = nnx.List(Stage(c, at, rates, init) for at in range(len(c.depths)))
        self.norm = LayerNorm(c.widths[-1], dtype, param_dtype, eps=1e-6)
        self.reset_classifier(c.num_classes, rngs=rngs)

    @property
    def num_features(self) -> int:
        return self.config.widths[-1]

    def reset_classifier(self, num_classes: int, pool: Any = None, *, rngs: nnx.Rngs) -> None:
        self.config = self.config.replace(num_classes=num_classes)
        init = Init(rngs, self.dtype, self.param_dtype)
        self.head = make_linear(self.num_features, num_classes, init=init) if num_classes else nnx.identity

    def embed(self, images: Array, *, rngs: Any = None) -> Array:
        return self.patch_embed(images)

    def segments(self) -> Any:
        return [stage.blocks for stage in self.levels]

    def enter(self, segment: int, tokens: Array) -> Array:
        if not segment:
            return tokens
        B, N, D = tokens.shape
        return self.levels[segment].merge(tokens.reshape(B, N // 2, 2 * D))

    def forward_head(self, tokens: Array) -> Array:
        return self.head(jnp.mean(tokens, axis=1))


MODEL = Toy
