"""The canonical parameters of a model: timm's classic names, their shapes in PyTorch's layout, and their kinds.

This is the list that readers are checked against, counts are taken from, and the two frameworks are tested
against; nothing else in the project writes a parameter's shape down.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from vit_spec.vit.config import ViTConfig


class Kind(Enum):
    """What a parameter is, and so how frameworks lay it out: PyTorch's axes are in the comment."""

    LINEAR = "linear"  # (out, in)
    CONV = "conv"  # (out, in, height, width)
    NORM = "norm"  # (channels,), the factor
    BIAS = "bias"  # (channels,)
    TABLE = "table"  # tokens, position table, layer scale: the same axes everywhere


@dataclass(frozen=True)
class Parameter:
    """One tensor: canonical name, shape in PyTorch's layout, kind."""

    name: str
    shape: tuple[int, ...]

    @property
    def kind(self) -> Kind:
        return kind_of(self.name)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


_NORMS = frozenset({"norm", "norm1", "norm2", "in_norm", "norm_pre", "fc_norm", "q_norm", "k_norm"})


def kind_of(name: str) -> Kind:
    """The kind of a canonical name, by its module's name: no shape is looked at, so square matrices are safe."""
    module, _, leaf = name.rpartition(".")
    if leaf == "bias":
        return Kind.BIAS
    if leaf != "weight":
        return Kind.TABLE
    if module.rpartition(".")[2] in _NORMS:
        return Kind.NORM
    return Kind.CONV if module == "patch_embed.proj" else Kind.LINEAR


def parameters(config: ViTConfig) -> tuple[Parameter, ...]:
    """Every parameter of the model, in the order of its PyTorch state_dict."""
    return tuple(_model(config))


def count_parameters(config: ViTConfig) -> int:
    """Number of trainable scalars."""
    return sum(parameter.size for parameter in parameters(config))


def _model(c: ViTConfig) -> Iterator[Parameter]:
    D = c.embed_dim
    if c.class_token:
        yield Parameter("cls_token", (1, 1, D))
    if c.distilled:
        yield Parameter("dist_token", (1, 1, D))
    if c.register_tokens:
        yield Parameter("reg_token", (1, c.register_tokens, D))
    if c.pos_embed != "none":
        yield Parameter("pos_embed", (1, c.num_positioned_prefix_tokens + c.num_patches, D))
    yield Parameter("patch_embed.proj.weight", (D, c.in_channels, c.patch_size, c.patch_size))
    if c.patch_bias:
        yield Parameter("patch_embed.proj.bias", (D,))
    if c.patch_norm:
        yield from _norm(c, "patch_embed.norm", D)
    if c.pre_norm:
        yield from _norm(c, "norm_pre", D)
    for block in range(c.depth):
        yield from (_parallel_block if c.block == "parallel" else _block)(c, f"blocks.{block}")
    if c.final_norm == "tokens":
        yield from _norm(c, "norm", D)
    if c.pool == "map":
        yield from _attention_pool(c, "attn_pool")
    if c.final_norm == "pooled":
        yield from _norm(c, "fc_norm", D)
    features = c.pooled_dim
    if c.pre_logits_dim is not None:
        yield from _linear("pre_logits.fc", features, c.pre_logits_dim)
        features = c.pre_logits_dim
    if c.num_classes:
        yield from _linear("head", features, c.num_classes)
        if c.distilled:
            yield from _linear("head_dist", features, c.num_classes)


def _block(c: ViTConfig, at: str) -> Iterator[Parameter]:
    D = c.embed_dim
    yield from _norm(c, f"{at}.norm1", D)
    yield from _linear(f"{at}.attn.qkv", D, 3 * D, bias=c.qkv_bias)
    if c.qk_norm:
        yield from _norm(c, f"{at}.attn.q_norm", c.head_dim)
        yield from _norm(c, f"{at}.attn.k_norm", c.head_dim)
    if c.attn_norm:
        yield from _norm(c, f"{at}.attn.norm", D)
    yield from _linear(f"{at}.attn.proj", D, D, bias=c.proj_bias)
    if c.layer_scale is not None:
        yield Parameter(f"{at}.ls1.gamma", (D,))
    yield from _norm(c, f"{at}.norm2", D)
    yield from _mlp(c, f"{at}.mlp")
    if c.layer_scale is not None:
        yield Parameter(f"{at}.ls2.gamma", (D,))


def _parallel_block(c: ViTConfig, at: str) -> Iterator[Parameter]:
    D, M = c.embed_dim, c.hidden_dim
    if not c.qkv_bias:
        yield Parameter(f"{at}.mlp_bias", (M,))
    yield from _norm(c, f"{at}.in_norm", D)
    yield from _linear(f"{at}.in_proj", D, M + 3 * D, bias=c.qkv_bias)
    if c.qk_norm:
        yield from _norm(c, f"{at}.q_norm", c.head_dim)
        yield from _norm(c, f"{at}.k_norm", c.head_dim)
    yield from _linear(f"{at}.attn_out_proj", D, D, bias=c.proj_bias)
    yield from _linear(f"{at}.mlp_out_proj", M, D, bias=c.proj_bias)
    if c.layer_scale is not None:
        yield Parameter(f"{at}.ls.gamma", (D,))


def _mlp(c: ViTConfig, at: str) -> Iterator[Parameter]:
    D, M, bias = c.embed_dim, c.hidden_dim, c.proj_bias
    if c.mlp == "swiglu":
        yield from _linear(f"{at}.fc1_g", D, M, bias=bias)
        yield from _linear(f"{at}.fc1_x", D, M, bias=bias)
    else:
        yield from _linear(f"{at}.fc1", D, 2 * M if c.mlp == "swiglu_packed" else M, bias=bias)
    if c.mlp_norm:
        yield from _norm(c, f"{at}.norm", M)
    yield from _linear(f"{at}.fc2", M, D, bias=bias)


def _attention_pool(c: ViTConfig, at: str) -> Iterator[Parameter]:
    D = c.embed_dim
    yield Parameter(f"{at}.latent", (1, 1, D))
    yield from _linear(f"{at}.q", D, D)
    yield from _linear(f"{at}.kv", D, 2 * D)
    yield from _linear(f"{at}.proj", D, D)
    yield from _norm(c, f"{at}.norm", D)
    yield from _linear(f"{at}.mlp.fc1", D, c.hidden_dim)
    yield from _linear(f"{at}.mlp.fc2", c.hidden_dim, D)


def _norm(c: ViTConfig, at: str, width: int) -> Iterator[Parameter]:
    yield Parameter(f"{at}.weight", (width,))
    if c.norm_bias:
        yield Parameter(f"{at}.bias", (width,))


def _linear(at: str, inputs: int, outputs: int, *, bias: bool = True) -> Iterator[Parameter]:
    yield Parameter(f"{at}.weight", (outputs, inputs))
    if bias:
        yield Parameter(f"{at}.bias", (outputs,))
