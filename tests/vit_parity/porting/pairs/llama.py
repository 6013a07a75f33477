"""``transformers.LlamaModel``: RMS norms, rotary positions, fewer heads of keys than of queries, a gated MLP."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from tests.vit_parity.porting.pairs.pair import NO_MASK, NO_SCALE, Planted, PortedModel, attributes
from tests.vit_parity.porting.ports import arrays, attended, carried, filled

IDS = np.random.default_rng(3).integers(0, 50, (2, 9))
WIDTH, HEADS, KEYS, HIDDEN, DEPTH = 32, 4, 2, 40, 2


def llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=50, hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=DEPTH, return_dict=False,
        num_attention_heads=HEADS, num_key_value_heads=KEYS, max_position_embeddings=32, use_cache=False,
        pad_token_id=None, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaModel(config)
    angles = model.rotary_emb.inv_freq.clone()
    filled(model)
    model.rotary_emb.inv_freq.data = angles
    return model.eval()


def by_halves(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotary positions whose pairs stand half a head apart; (B, N, h, d), (N, d / 2)."""
    first, second = jnp.split(x, 2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def by_pairs(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotary positions of neighbouring channels."""
    first, second = x[..., ::2], x[..., 1::2]
    cos, sin = cos[:, None], sin[:, None]
    return jnp.stack([first * cos - second * sin, second * cos + first * sin], -1).reshape(x.shape)


class Attention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        head = WIDTH // HEADS
        self.q, self.out = (nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs) for _ in range(2))
        self.k, self.v = (nnx.Linear(WIDTH, KEYS * head, use_bias=False, rngs=rngs) for _ in range(2))
        self.rotate, self.base, self.first, self.sign = by_halves, 10000.0, 0, 1.0
        self.scale, self.causal, self.turned = head**-0.5, True, ("q", "k")
        self.repeat: Callable[[jax.Array], jax.Array] = lambda x: jnp.repeat(x, HEADS // KEYS, 2)

    def __call__(self, x: jax.Array) -> jax.Array:
        count, head = x.shape[1], WIDTH // HEADS
        angles = (jnp.arange(count) + self.first)[:, None] / self.base ** (jnp.arange(0, head, 2) / head)
        cos, sin = jnp.cos(angles), self.sign * jnp.sin(angles)
        q, k, v = (it(x).reshape(*x.shape[:2], -1, head) for it in (self.q, self.k, self.v))
        q = self.rotate(q, cos, sin) if "q" in self.turned else q
        k = self.rotate(k, cos, sin) if "k" in self.turned else k
        k, v = self.repeat(k), self.repeat(v)
        return self.out(attended(q, k, v, self.scale, causal=self.causal).reshape(x.shape))


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = (nnx.RMSNorm(WIDTH, epsilon=1e-6, rngs=rngs) for _ in range(2))
        self.attn = Attention(rngs)
        self.gate, self.up = (nnx.Linear(WIDTH, HIDDEN, use_bias=False, rngs=rngs) for _ in range(2))
        self.down = nnx.Linear(HIDDEN, WIDTH, use_bias=False, rngs=rngs)
        self.act, self.swapped = nnx.silu, False

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.norm1(x))
        normed = self.norm2(x)
        gate, up = self.gate(normed), self.up(normed)
        gate, up = (up, gate) if self.swapped else (gate, up)
        return x + self.down(self.act(gate) * up)


class Llama(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.words = nnx.Embed(50, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(DEPTH)])
        self.norm = nnx.RMSNorm(WIDTH, epsilon=1e-6, rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def _layers() -> dict[str, str]:
    names = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm", "attn.q": "self_attn.q_proj",
             "attn.k": "self_attn.k_proj", "attn.v": "self_attn.v_proj", "attn.out": "self_attn.o_proj",
             "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}  # fmt: skip
    found = {f"blocks.{at}.{ours}": f"layers.{at}.{theirs}" for at in range(DEPTH) for ours, theirs in names.items()}
    return {"words": "embed_tokens", "norm": "norm"} | found


LAYERS = _layers()


def ported(model: torch.nn.Module) -> Llama:
    tensors = arrays(model)
    mirror = Llama(nnx.Rngs(0))
    carried(mirror, tensors, LAYERS)
    return mirror


def _own() -> list[Planted]:
    found = []
    for at in range(DEPTH):
        ours, attention, mlp = f"blocks.{at}.attn", f"layers.{at}.self_attn.o_proj", f"layers.{at}.mlp.down_proj"
        found += [
            Planted("rotary by pairs", attributes(ours, rotate=by_pairs), attention,
                    "turns pairs of neighbouring channels, not of halves"),
            Planted("rotary backwards", attributes(ours, sign=-1.0), attention, "turns the other way"),
            Planted("rotary base", attributes(ours, base=5e5), attention,
                    "turns by other angles: base 500000, not 10000"),
            Planted("keys not turned", attributes(ours, turned=("q",)), attention, "does not turn its keys"),
            Planted("queries not turned", attributes(ours, turned=("k",)), attention, "does not turn its queries"),
            Planted("nothing turned", attributes(ours, turned=()), attention, "leaves out the rotary positions"),
            NO_MASK.at(ours, attention),
            NO_SCALE.at(ours, attention),
            Planted("heads of keys dealt in turns", attributes(ours, repeat=lambda x: jnp.tile(x, (1, 1, 2, 1))),
                    attention, "deals keys and values to queries in turns (tiled, not repeated)"),
            Planted("GELU gate", attributes(f"blocks.{at}", act=nnx.gelu), mlp,
                    "uses tanh GELU instead of SiLU in its gate"),
            Planted("gate and value swapped", attributes(f"blocks.{at}", swapped=True), mlp,
                    "applies SiLU to the other half of its gate"),
        ]  # fmt: skip
    return found


PAIR = PortedModel("Llama (transformers)", llama, ported, {"input_ids": IDS}, LAYERS, _own, IDS)
