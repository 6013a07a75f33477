"""``transformers.ViTModel``: queries, keys and values are three products."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import torch
from flax import nnx

from tests.vit_parity.porting.pairs.pair import NO_SCALE, SCALE_OF_WIDTH, Planted, PortedModel, attributes
from tests.vit_parity.porting.ports import arrays, attended, carried, filled, tokens

WIDTH, HEADS, DEPTH = 24, 4, 2


def vit() -> torch.nn.Module:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=48,
                       image_size=(16, 24), patch_size=8, layer_norm_eps=1e-6, return_dict=False)  # fmt: skip
    return filled(ViTModel(config, add_pooling_layer=False)).eval()


class Attention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.query, self.key, self.value, self.out = (nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(4))
        self.scale, self.over = (WIDTH // HEADS) ** -0.5, -1

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = (it(x).reshape(*x.shape[:2], HEADS, -1) for it in (self.query, self.key, self.value))
        return self.out(attended(q, k, v, self.scale, over=self.over).reshape(x.shape))


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = (nnx.LayerNorm(WIDTH, epsilon=1e-6, rngs=rngs) for _ in range(2))
        self.attn = Attention(rngs)
        self.fc1, self.fc2 = nnx.Linear(WIDTH, 48, rngs=rngs), nnx.Linear(48, WIDTH, rngs=rngs)
        self.act: Callable[[jax.Array], jax.Array] = lambda x: nnx.gelu(x, approximate=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


class Vit(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.patches = nnx.Conv(3, WIDTH, (8, 8), (8, 8), padding="VALID", rngs=rngs)
        self.cls, self.positions = nnx.Param(jnp.zeros((1, 1, WIDTH))), nnx.Param(jnp.zeros((1, 7, WIDTH)))
        self.blocks = nnx.List([Block(rngs) for _ in range(DEPTH)])
        self.norm = nnx.LayerNorm(WIDTH, epsilon=1e-6, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patches(x).reshape(x.shape[0], -1, WIDTH)
        x = jnp.concatenate([jnp.tile(self.cls[...], (x.shape[0], 1, 1)), x], 1) + self.positions[...]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def ported(model: torch.nn.Module) -> Vit:
    tensors = arrays(model)
    mirror = Vit(nnx.Rngs(0))
    mirror.cls[...] = tensors["embeddings.cls_token"]
    mirror.positions[...] = tensors["embeddings.position_embeddings"]
    carried(mirror, tensors, LAYERS)
    return mirror


def _layers() -> dict[str, str]:
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.query": "attention.q_proj",
             "attn.key": "attention.k_proj", "attn.value": "attention.v_proj", "attn.out": "attention.o_proj",
             "fc1": "mlp.fc1", "fc2": "mlp.fc2"}  # fmt: skip
    found = {f"blocks.{at}.{ours}": f"layers.{at}.{theirs}" for at in range(DEPTH) for ours, theirs in names.items()}
    return {"patches": "embeddings.patch_embeddings.projection", "norm": "layernorm"} | found


LAYERS = _layers()


def _own() -> list[Planted]:
    found = []
    for at in range(DEPTH):
        ours, attention, mlp = f"blocks.{at}", f"layers.{at}.attention.o_proj", f"layers.{at}.mlp.fc2"
        found += [
            NO_SCALE.at(f"{ours}.attn", attention),
            SCALE_OF_WIDTH.at(f"{ours}.attn", attention),
            Planted("scale 1 / d", attributes(f"{ours}.attn", scale=1 / 6), attention,
                    "scales its scores by 1 / d instead of 1 / sqrt(d)"),
            Planted("softmax over queries", attributes(f"{ours}.attn", over=-2), attention,
                    "takes the softmax over queries instead of keys"),
            Planted("tanh GELU", attributes(ours, act=nnx.gelu), mlp, "uses tanh GELU instead of GELU"),
            Planted("Quick GELU", attributes(ours, act=lambda x: x * nnx.sigmoid(1.702 * x)), mlp,
                    "uses Quick GELU instead of GELU"),
        ]  # fmt: skip
    return found


PAIR = PortedModel("ViT (transformers)", vit, ported, tokens(2, 3, 16, 24), LAYERS, _own)
