"""The forward pass in numpy float64, from whatever activations are known: what each layer should have given.

Each activation is computed from the nearest known ones before it. Given all of a run's own activations, the difference
to the replay is each layer's own error, apart from what it inherited. What a framework's model computes is written
anew here, so that a hypothesis about another's code can be played through in a few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from vit_parity.points import answer_name
from vit_parity.semantics.layers import ACTIVATIONS, softmax
from vit_spec import ViTConfig

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A matrix product: (..., i, j) and (..., j, k) -> (..., i, k)."""
Linear = Callable[[np.ndarray, np.ndarray, np.ndarray | float], np.ndarray]
"""A linear layer: (..., I), weight (O, I) and bias (O,), or 0 where there is none -> (..., O)."""


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
    """As it is defined."""
    return x @ weight.T + bias


@dataclass(frozen=True)
class Subject:
    """A model as it is, or as it may have been computed."""

    config: ViTConfig
    params: Mapping[str, np.ndarray]
    """Canonical name → float64."""
    images: np.ndarray
    """(B, H, W, C)."""
    linear: Linear = linear
    """How linear layers are computed, and the patches' convolution, which is one."""
    attention_product: Product = np.matmul
    """Of queries with keys, and of weights with values."""
    coarse: float = 0.0
    """Unit roundoff of what those two round to on the way; 0 where they do not. There a last bit that another order of
    summation moves may move a number by twice this."""
    qkv_order: str = "qkv"
    """In which order the parts of the joint layer are read."""
    heads_first: bool = False
    """Whether each head's q, k and v lie together, instead of each part's heads."""
    bare_prefix: bool = False
    """Whether prefix tokens go without the position table's rows."""
    skipped: frozenset[str] = frozenset()
    """Norms, layer scales and tanh (``pre_logits.act``) that are left out, by their path, in blocks by that within the
    block: ``norm1`` and ``mlp.norm`` in every block, ``norm`` and ``patch_embed.norm`` each by itself."""
    blur: Callable[[np.ndarray], np.ndarray] | None = None
    """Moves every number that the replay is given or computes, to see how much that matters."""

    def with_params(self, change: Callable[[str, np.ndarray], np.ndarray | None]) -> Subject:
        """With every parameter as ``change(name, array)`` gives it; ``None`` takes it away."""
        new = {name: change(name, array) for name, array in self.params.items()}
        return replace(self, params={name: array for name, array in new.items() if array is not None})

    def skips(self, at: str) -> bool:
        """Whether the layer at a path is left out."""
        return (at.split(".", 2)[2] if at.startswith("blocks.") else at) in self.skipped


def float64_params(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All of a checkpoint's weights, in memory."""
    return {name: array.astype(np.float64) for name, array in params.items()}


def stage_of(name: str) -> str:
    """The part of the model that an activation is computed in: ``embed``, ``blocks.3`` or ``head``."""
    if name.startswith("blocks."):
        return ".".join(name.split(".")[:2])
    return "embed" if name in ("embed", "tokens") or name.startswith("patch_embed.") else "head"


def replay(subject: Subject, known: Mapping[str, np.ndarray], stage: str | None = None) -> dict[str, np.ndarray]:
    """What each layer gives on the known inputs.

    Args:
        subject: the model.
        known: activations that are taken as they are wherever a later one is computed from them.
        stage: compute this one alone (see :func:`stage_of`); the tokens before it must be known, else the whole
            model before it is computed too.

    Returns:
        Name → float64 array, for every activation of :func:`vit_parity.points.points` (of the stage).
    """
    return _Replay(subject, known).run(stage)


class _Replay:
    def __init__(self, subject: Subject, known: Mapping[str, np.ndarray]) -> None:
        self.c, self.p, self.subject = subject.config, subject.params, subject
        self.known = known
        self.found: dict[str, np.ndarray] = {}

    def run(self, stage: str | None) -> dict[str, np.ndarray]:
        stages = ["embed", *(f"blocks.{at}" for at in range(self.c.depth)), "head"]
        last = len(stages) - 1 if stage is None else stages.index(stage)
        first = 0
        if stage is not None:
            tokens_known = [at for at in range(last) if stages[at] in self.known]
            first = tokens_known[-1] + 1 if tokens_known else 0
        x = self.known[stages[first - 1]].astype(np.float64) if first else np.zeros(0)
        for at in stages[first : last + 1]:
            if at == stage:
                self.found.clear()
            x = self.embed() if at == "embed" else self.head(x) if at == "head" else self.block(at, x)
        return self.found

    def note(self, name: str, value: np.ndarray) -> np.ndarray:
        self.found[name] = value
        known = self.known.get(name)
        if known is not None and known.shape == value.shape:
            value = known.astype(np.float64)
        return value if self.subject.blur is None else self.subject.blur(value)

    def linear(self, at: str, x: np.ndarray) -> np.ndarray:
        """(..., in) -> (..., out)."""
        return self.subject.linear(x, self.p[f"{at}.weight"], self.p.get(f"{at}.bias", 0.0))

    def norm(self, at: str, x: np.ndarray) -> np.ndarray:
        if self.subject.skips(at):
            return x
        if self.c.norm == "layernorm":
            x = x - x.mean(-1, keepdims=True)
        y = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c.norm_eps) * self.p[f"{at}.weight"]
        return y + self.p[f"{at}.bias"] if f"{at}.bias" in self.p else y

    def embed(self) -> np.ndarray:
        """Pictures -> (B, N, D)."""
        c, images = self.c, self.subject.images.astype(np.float64)
        (B, H, W, C), P = images.shape, c.patch_size
        cut = images.reshape(B, H // P, P, W // P, P, C).transpose(0, 1, 3, 5, 2, 4).reshape(B, c.num_patches, -1)
        kernel = self.p["patch_embed.proj.weight"].reshape(c.embed_dim, -1)  # (D, C P P)
        x = self.subject.linear(cut, kernel, self.p.get("patch_embed.proj.bias", 0.0))
        x = self.note("patch_embed.proj", x)
        if c.patch_norm:
            x = self.note("patch_embed.norm", self.norm("patch_embed.norm", x))
        prefix = [self.p[name] for name in ("cls_token", "dist_token", "reg_token") if name in self.p]
        tokens = np.concatenate([*prefix, np.zeros((1, 0, c.embed_dim))], axis=1)  # (1, prefix, D)
        positioned = c.num_positioned_prefix_tokens
        if c.pos_embed != "none":
            x = x + self.p["pos_embed"][:, positioned:]
            rows = self.p["pos_embed"][:, :positioned] * (not self.subject.bare_prefix)
            tokens = np.concatenate([tokens[:, :positioned] + rows, tokens[:, positioned:]], axis=1)
        x = np.concatenate([np.broadcast_to(tokens, (B, *tokens.shape[1:])), x], axis=1)
        if c.pre_norm:
            x = self.norm("norm_pre", self.note("tokens", x))
        return self.note("embed", x)

    def block(self, at: str, x: np.ndarray) -> np.ndarray:
        """(B, N, D) -> (B, N, D)."""
        if self.c.block == "parallel":
            return self.parallel_block(at, x)
        post = self.c.block == "post_norm"
        y = x if post else self.note(f"{at}.norm1", self.norm(f"{at}.norm1", x))
        y = self.attention(at, self.note(f"{at}.attn.qkv", self.linear(f"{at}.attn.qkv", y)), f"{at}.attn")
        y = self.note(f"{at}.attn.norm", self.norm(f"{at}.attn.norm", y)) if self.c.attn_norm else y
        y = self.note(f"{at}.attn.proj", self.linear(f"{at}.attn.proj", y))
        y = self.note(f"{at}.norm1", self.norm(f"{at}.norm1", y)) if post else y
        y = self.scale(f"{at}.ls1", y)
        x = self.note(f"{at}.mid", x + y)
        y = x if post else self.note(f"{at}.norm2", self.norm(f"{at}.norm2", x))
        y = self.mlp(f"{at}.mlp", y, self.c.mlp)
        y = self.note(f"{at}.norm2", self.norm(f"{at}.norm2", y)) if post else y
        y = self.scale(f"{at}.ls2", y)
        return self.note(at, x + y)

    def parallel_block(self, at: str, x: np.ndarray) -> np.ndarray:
        """(B, N, D) -> (B, N, D)."""
        y = self.note(f"{at}.in_norm", self.norm(f"{at}.in_norm", x))
        y = self.note(f"{at}.in_proj", self.linear(f"{at}.in_proj", y))
        hidden, qkv = y[..., : self.c.hidden_dim], y[..., self.c.hidden_dim :]
        attention = self.linear(f"{at}.attn_out_proj", self.attention(at, qkv, at))
        attention = self.note(f"{at}.attn_out_proj", attention)
        hidden = hidden + self.p.get(f"{at}.mlp_bias", 0.0)
        hidden = self.note(f"{at}.mlp.act", ACTIVATIONS[self.c.activation](hidden))
        y = attention + self.note(f"{at}.mlp_out_proj", self.linear(f"{at}.mlp_out_proj", hidden))
        return self.note(at, x + self.scale(f"{at}.ls", y))

    def scale(self, at: str, x: np.ndarray) -> np.ndarray:
        """The identity where the model has no layer scale."""
        if f"{at}.gamma" not in self.p:
            return x
        return self.note(at, x if self.subject.skips(at) else x * self.p[f"{at}.gamma"])

    def attention(self, at: str, qkv: np.ndarray, norms: str) -> np.ndarray:
        """(B, N, 3 D) -> the heads side by side, (B, N, D)."""
        c, (B, N, _) = self.c, qkv.shape
        if self.subject.heads_first:
            parts = qkv.reshape(B, N, c.num_heads, 3, c.head_dim).transpose(3, 0, 2, 1, 4)
        else:
            parts = qkv.reshape(B, N, 3, c.num_heads, c.head_dim).transpose(2, 0, 3, 1, 4)  # 3 of (B, h, N, d)
        q, k, v = (parts[self.subject.qkv_order.index(part)] for part in "qkv")
        if c.qk_norm:
            q, k = self.norm(f"{norms}.q_norm", q), self.norm(f"{norms}.k_norm", k)
        q, k, v = (self.note(f"{at}.attn.{name}", part) for name, part in zip("qkv", (q, k, v), strict=True))
        weights = softmax(self.subject.attention_product(q * c.attention_scale, k.swapaxes(-2, -1)))  # (B, h, N, N)
        weights = self.note(f"{at}.attn.softmax", weights)
        heads = self.subject.attention_product(weights, v).swapaxes(1, 2).reshape(B, N, -1)
        return self.note(f"{at}.attn.heads", heads)

    def mlp(self, at: str, x: np.ndarray, kind: str) -> np.ndarray:
        """(..., D) -> (..., D)."""
        c = self.c
        if kind == "swiglu":
            gate = self.note(f"{at}.fc1_g", self.linear(f"{at}.fc1_g", x))
            value = self.note(f"{at}.fc1_x", self.linear(f"{at}.fc1_x", x))
        else:
            gate = self.note(f"{at}.fc1", self.linear(f"{at}.fc1", x))
            gate, value = (gate[..., : c.hidden_dim], gate[..., c.hidden_dim :]) if kind != "plain" else (gate, 1.0)
        x = self.note(f"{at}.act", ACTIVATIONS[c.activation](gate) * value)
        x = self.note(f"{at}.norm", self.norm(f"{at}.norm", x)) if f"{at}.norm.weight" in self.p else x
        return self.note(f"{at}.fc2", self.linear(f"{at}.fc2", x))

    def head(self, x: np.ndarray) -> np.ndarray:
        """(B, N, D) -> (B, K)."""
        c, p = self.c, self.p
        x = self.note("norm", self.norm("norm", x)) if c.final_norm == "tokens" else x
        x = self.note("pooled", self.pool(x))
        x = self.note("fc_norm", self.norm("fc_norm", x)) if c.final_norm == "pooled" else x
        if c.pre_logits_dim is not None:
            x = self.linear("pre_logits.fc", x)
            x = self.note("pre_logits", x if self.subject.skips("pre_logits.act") else np.tanh(x))
        if c.distilled:
            both = [x[:, 0], x[:, 1]]
            if c.num_classes:
                both = [self.note(at, self.linear(at, y)) for at, y in zip(("head", "head_dist"), both, strict=True)]
            x = (both[0] + both[1]) / 2
        elif c.num_classes and "head.weight" in p:
            x = self.linear("head", x)
        return self.note(answer_name(c), x)

    def pool(self, x: np.ndarray) -> np.ndarray:
        """(B, N, D) -> (B, D); (B, 2, D) where there is a distillation token."""
        c = self.c
        if c.distilled:
            return x[:, :2]
        patches = x if c.pool_prefix else x[:, c.num_prefix_tokens :]
        if c.pool == "map":
            return self.attention_pool(patches)
        if c.pool == "token":
            return x[:, 0]
        mean = patches.mean(axis=1)
        return mean if c.pool == "avg" else np.concatenate([x[:, 0], mean], axis=-1)

    def attention_pool(self, x: np.ndarray) -> np.ndarray:
        """(B, N, D) -> (B, D)."""
        c, (B, N, D) = self.c, x.shape
        q = self.note("attn_pool.q", self.linear("attn_pool.q", self.p["attn_pool.latent"]))  # (1, 1, D)
        kv = self.note("attn_pool.kv", self.linear("attn_pool.kv", x)).reshape(B, N, 2, c.num_heads, c.head_dim)
        k, v = kv.transpose(2, 0, 3, 1, 4)  # (B, h, N, d) each
        q = q.reshape(1, 1, c.num_heads, c.head_dim).swapaxes(1, 2)
        weights = softmax(self.subject.attention_product(q * c.head_dim**-0.5, k.swapaxes(-2, -1)))  # (B, h, 1, N)
        y = self.note("attn_pool.heads", self.subject.attention_product(weights, v).reshape(B, D))
        y = self.note("attn_pool.proj", self.linear("attn_pool.proj", y))
        return y + self.mlp("attn_pool.mlp", self.note("attn_pool.norm", self.norm("attn_pool.norm", y)), "plain")
