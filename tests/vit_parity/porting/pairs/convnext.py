"""``transformers.ConvNextModel``."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import torch
from flax import nnx

from tests.vit_parity.porting.pairs.pair import Planted, PortedModel, attributes
from tests.vit_parity.porting.ports import arrays, carried, filled, tokens

WIDTHS = (8, 16)


def convnext() -> torch.nn.Module:
    from transformers import ConvNextConfig, ConvNextModel

    config = ConvNextConfig(hidden_sizes=list(WIDTHS), depths=[2, 1], num_stages=2, patch_size=4,
                            layer_norm_eps=1e-6)  # fmt: skip
    return filled(ConvNextModel(config)).eval()


class Block(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.depthwise = nnx.Conv(width, width, (7, 7), padding=(3, 3), feature_group_count=width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)
        self.gamma = nnx.Param(jnp.ones(width))
        self.act: Callable[[jax.Array], jax.Array] = lambda x: nnx.gelu(x, approximate=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.gamma[...] * self.down(self.act(self.up(self.norm(self.depthwise(x)))))


class ConvNeXt(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, WIDTHS[0], (4, 4), (4, 4), padding="VALID", rngs=rngs)
        self.stem_norm = nnx.LayerNorm(WIDTHS[0], epsilon=1e-6, rngs=rngs)
        self.first = nnx.List([Block(WIDTHS[0], rngs) for _ in range(2)])
        self.between_norm = nnx.LayerNorm(WIDTHS[0], epsilon=1e-6, rngs=rngs)
        self.between = nnx.Conv(*WIDTHS, (2, 2), (2, 2), padding="VALID", rngs=rngs)
        self.second = nnx.List([Block(WIDTHS[1], rngs)])
        self.norm = nnx.LayerNorm(WIDTHS[1], epsilon=1e-6, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = self.stem_norm(self.stem(x))
        for block in self.first:
            x = block(x)
        x = self.between(self.between_norm(x))
        for block in self.second:
            x = block(x)
        return x, self.norm(x.mean((1, 2)))


BLOCKS = {"first.0": "0.layers.0", "first.1": "0.layers.1", "second.0": "1.layers.0"}


def _layers() -> dict[str, str]:
    found = {"stem": "embeddings.patch_embeddings", "stem_norm": "embeddings.layernorm",
             "between_norm": "encoder.stages.1.downsampling_layer.0",
             "between": "encoder.stages.1.downsampling_layer.1",
             "norm": "layernorm"}  # fmt: skip
    names = {"depthwise": "dwconv", "norm": "layernorm", "up": "pwconv1", "down": "pwconv2"}
    return found | {f"{ours}.{it}": f"encoder.stages.{theirs}.{other}" for ours, theirs in BLOCKS.items()
                    for it, other in names.items()}  # fmt: skip


LAYERS = _layers()


def ported(model: torch.nn.Module) -> ConvNeXt:
    tensors = arrays(model)
    mirror = ConvNeXt(nnx.Rngs(0))
    carried(mirror, tensors, LAYERS)
    for ours, theirs in BLOCKS.items():
        side, at = ours.split(".")
        getattr(mirror, side)[int(at)].gamma[...] = tensors[f"encoder.stages.{theirs}.layer_scale_parameter"]
    return mirror


def _own() -> list[Planted]:
    found = []
    for ours, theirs in BLOCKS.items():
        stage = f"encoder.stages.{theirs}"
        found += [
            Planted("tanh GELU", attributes(ours, act=nnx.gelu), f"{stage}.pwconv2", "uses tanh GELU instead of GELU"),
            Planted("ReLU", attributes(ours, act=nnx.relu), f"{stage}.pwconv2", "uses ReLU instead of GELU"),
            Planted("depthwise SAME of an even size", attributes(f"{ours}.depthwise", padding=((2, 4), (2, 4))),
                    f"{stage}.dwconv", "pads by (2, 4) in height and (2, 4) in width"),
            Planted("depthwise padded as a ring", attributes(f"{ours}.depthwise", padding="CIRCULAR"),
                    f"{stage}.dwconv", "pads as a ring"),
            Planted("depthwise padded by reflection", attributes(f"{ours}.depthwise", padding="REFLECT"),
                    f"{stage}.dwconv", "pads by reflection"),
        ]  # fmt: skip
    return found


PAIR = PortedModel("ConvNeXt (transformers)", convnext, ported, tokens(2, 3, 32, 40), LAYERS, _own)
