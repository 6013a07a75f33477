"""Pairs of models: PyTorch's own classes, and what somebody would write for them in Flax, with mistakes to order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx


def encoder(depth: int = 2, **options: Any) -> torch.nn.Module:
    """``torch.nn.TransformerEncoder``, its weights away from those of a fresh one."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(24, 4, 48, activation="gelu", batch_first=True, norm_first=True, **options)
    model = torch.nn.TransformerEncoder(layer, depth, torch.nn.LayerNorm(24), enable_nested_tensor=False)
    return filled(model).eval()


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter and statistic from random numbers of its size."""
    rng = np.random.default_rng(0)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            around = 1.0 if tensor.ndim == 1 and ("weight" in name or "var" in name) else 0.0
            spread = 0.2 if tensor.ndim == 1 else 1 / np.sqrt(tensor[0].numel())
            tensor.data = torch.tensor(around + spread * rng.standard_normal(tuple(tensor.shape)), dtype=tensor.dtype)
            if "var" in name:
                tensor.data = tensor.data.abs() + 0.1
    return model


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Its weights by name."""
    return {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}


def attended(q: jax.Array, k: jax.Array, v: jax.Array, scale: float, *, causal: bool = False, over: int = -1) -> Any:
    """Attention as a user writes it, of (B, N, h, d), with a softmax over the axis ``over`` of (B, h, N, N)."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * scale
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, over), v)


class Attention(nnx.Module):
    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.scale = (width // heads) ** -0.5

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(self.qkv(x), 3, -1)
        q, k, v = (it.reshape(*it.shape[:2], self.heads, -1) for it in (q, k, v))
        return self.out(attended(q, k, v, self.scale).reshape(x.shape))


class Layer(nnx.Module):
    def __init__(self, width: int, heads: int, hidden: int, rngs: nnx.Rngs) -> None:
        self.ln_1 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.attn = Attention(width, heads, rngs)
        self.ln_2 = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.fc1 = nnx.Linear(width, hidden, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, rngs=rngs)
        self.act: Callable[[jax.Array], jax.Array] = lambda x: nnx.gelu(x, approximate=False)
        self.gain = 1.0

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attn(self.ln_1(x)) * self.gain
        return x + self.fc2(self.act(self.fc1(self.ln_2(x))))


class Encoder(nnx.Module):
    def __init__(self, depth: int, width: int, heads: int, hidden: int, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([Layer(width, heads, hidden, rngs) for _ in range(depth)])
        self.ln_f = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return self.ln_f(x)


def ported(model: torch.nn.Module) -> Encoder:
    """The encoder with the same weights."""
    tensors = arrays(model)
    depth = len(model.layers)
    mirror = Encoder(depth, 24, 4, 48, nnx.Rngs(0))
    for at, layer in enumerate(mirror.layers):
        names = {"ln_1": "norm1", "ln_2": "norm2", "fc1": "linear1", "fc2": "linear2"}
        for ours, theirs in names.items():
            put(getattr(layer, ours), tensors, f"layers.{at}.{theirs}")
        put(layer.attn.out, tensors, f"layers.{at}.self_attn.out_proj")
        layer.attn.qkv.kernel[...] = tensors[f"layers.{at}.self_attn.in_proj_weight"].T
        layer.attn.qkv.bias[...] = tensors[f"layers.{at}.self_attn.in_proj_bias"]
    put(mirror.ln_f, tensors, "norm")
    return mirror


def put(module: Any, tensors: dict[str, np.ndarray], name: str) -> None:
    """One layer's weights, as far as it has any."""
    places = {"scale": "weight", "kernel": "weight", "embedding": "weight", "bias": "bias"}
    for ours, theirs in places.items():
        variable, tensor = getattr(module, ours, None), tensors.get(f"{name}.{theirs}")
        if variable is not None and tensor is not None:
            axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(tensor.ndim) if ours == "kernel" else None
            variable[...] = tensor if axes is None else tensor.transpose(axes)


def carried(module: Any, tensors: dict[str, np.ndarray], layers: Mapping[str, str]) -> None:
    """The weights of every layer, by the paths of both."""
    modules = {".".join(map(str, path)): it for path, it in nnx.iter_modules(module)}
    for ours, theirs in layers.items():
        put(modules[ours], tensors, theirs)


def tokens(*shape: int) -> np.ndarray:
    """Standard normal numbers in float32."""
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def gpt2() -> torch.nn.Module:
    """``transformers.GPT2Model`` from random weights."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=24, n_head=4, n_layer=2, use_cache=False)
    return filled(GPT2Model(config)).eval()


class GptBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.ln_attn, self.ln_mlp = (nnx.LayerNorm(24, epsilon=1e-5, rngs=rngs) for _ in range(2))
        self.qkv, self.proj = nnx.Linear(24, 72, rngs=rngs), nnx.Linear(24, 24, rngs=rngs)
        self.up, self.down = nnx.Linear(24, 96, rngs=rngs), nnx.Linear(96, 24, rngs=rngs)
        self.act: Callable[[jax.Array], jax.Array] = nnx.gelu
        self.causal, self.scale, self.order = True, 6**-0.5, (0, 1, 2)

    def __call__(self, x: jax.Array) -> jax.Array:
        parts = jnp.split(self.qkv(self.ln_attn(x)), 3, -1)
        q, k, v = (parts[at].reshape(*x.shape[:2], 4, 6) for at in self.order)
        mixed = attended(q, k, v, self.scale, causal=self.causal)
        x = x + self.proj(mixed.reshape(x.shape))
        return x + self.down(self.act(self.up(self.ln_mlp(x))))


class Gpt(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.tokens, self.places = nnx.Embed(50, 24, rngs=rngs), nnx.Embed(16, 24, rngs=rngs)
        self.blocks = nnx.List([GptBlock(rngs) for _ in range(2)])
        self.ln = nnx.LayerNorm(24, epsilon=1e-5, rngs=rngs)
        self.first = 0

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.tokens(ids) + self.places(jnp.arange(ids.shape[1]) + self.first)
        for block in self.blocks:
            x = block(x)
        return self.ln(x)


def ported_gpt2(model: torch.nn.Module) -> Gpt:
    """The same weights in :class:`Gpt`."""
    tensors = arrays(model)
    mirror = Gpt(nnx.Rngs(0))
    mirror.tokens.embedding[...], mirror.places.embedding[...] = tensors["wte.weight"], tensors["wpe.weight"]
    names = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
    for at, block in enumerate(mirror.blocks):
        for ours, theirs in names.items():  # transformers keeps (in, out) here
            getattr(block, ours).kernel[...] = tensors[f"h.{at}.{theirs}.weight"]
            getattr(block, ours).bias[...] = tensors[f"h.{at}.{theirs}.bias"]
        put(block.ln_attn, tensors, f"h.{at}.ln_1")
        put(block.ln_mlp, tensors, f"h.{at}.ln_2")
    put(mirror.ln, tensors, "ln_f")
    return mirror


def resnet() -> torch.nn.Module:
    """``transformers.ResNetModel`` of two stages from random weights."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_channels=3, return_dict=False
    )
    return filled(ResNetModel(config)).eval()


class ConvNorm(nnx.Module):
    def __init__(self, wide: tuple[int, int], size: int, stride: int, rngs: nnx.Rngs, *, act: bool = True) -> None:
        side = (size // 2, size // 2)
        self.conv = nnx.Conv(*wide, (size, size), (stride, stride), padding=(side, side), use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(wide[1], use_running_average=True, epsilon=1e-5, rngs=rngs)
        self.act = act

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.bn(self.conv(x))
        return nnx.relu(x) if self.act else x


class Residual(nnx.Module):
    def __init__(self, wide: tuple[int, int], stride: int, rngs: nnx.Rngs) -> None:
        self.one = ConvNorm(wide, 3, stride, rngs)
        self.two = ConvNorm((wide[1], wide[1]), 3, 1, rngs, act=False)
        self.short = ConvNorm(wide, 1, stride, rngs, act=False) if wide[0] != wide[1] or stride > 1 else None
        self.last = nnx.relu

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.two(self.one(x)) + (x if self.short is None else self.short(x)))


class ResNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = ConvNorm((3, 8), 7, 2, rngs)
        self.layers = nnx.List([Residual((8, 8), 1, rngs), Residual((8, 16), 2, rngs), Residual((16, 16), 1, rngs)])
        self.pool_padding = ((1, 1), (1, 1))

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nnx.max_pool(self.stem(x), (3, 3), (2, 2), self.pool_padding)
        for layer in self.layers:
            x = layer(x)
        return x, x.mean((1, 2), keepdims=True)


def ported_resnet(model: torch.nn.Module) -> ResNet:
    """The same weights in :class:`ResNet`."""
    tensors = arrays(model)
    mirror = ResNet(nnx.Rngs(0))
    names = {"embedder.embedder": mirror.stem}
    for at, path in enumerate(("0.layers.0", "1.layers.0", "1.layers.1")):
        layer = mirror.layers[at]
        names |= {f"encoder.stages.{path}.layer.0": layer.one, f"encoder.stages.{path}.layer.1": layer.two}
        if layer.short is not None:
            names[f"encoder.stages.{path}.shortcut"] = layer.short
    for theirs, ours in names.items():
        ours.conv.kernel[...] = tensors[f"{theirs}.convolution.weight"].transpose(2, 3, 1, 0)
        put_norm = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        for name, other in put_norm.items():
            getattr(ours.bn, name)[...] = tensors[f"{theirs}.normalization.{other}"]
    return mirror
