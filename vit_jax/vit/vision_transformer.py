"""The Vision Transformer (Dosovitskiy et al. 2021), with the options of its descendants."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, overload

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vit_jax.layers.attention_pool import AttentionPool
from vit_jax.layers.dropout import Dropout, DropoutKeys
from vit_jax.layers.initialization import Init, make_linear, make_tokens
from vit_jax.layers.maps import Intermediates, as_format
from vit_jax.layers.norm import make_norm
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.model import VisionModel
from vit_jax.vit.block import Block, OriginalBlock, PostNormBlock
from vit_jax.vit.branched_block import BranchedBlock
from vit_jax.vit.parallel_block import ParallelBlock
from vit_spec import OutputFormat, Pooling, ViTConfig, block_indices, with_pool

BLOCKS = {
    "sequential": Block,
    "post_norm": PostNormBlock,
    "original": OriginalBlock,
    "parallel": ParallelBlock,
    "branched": BranchedBlock,
}


class VisionTransformer(VisionModel[ViTConfig]):
    """The Vision Transformer that a config describes.

    The paths of its parameters follow ``vit_spec.parameters(config)``, timm's classic names, with Flax's leaf names. It
    starts in training mode; ``model.eval()`` turns dropout and stochastic depth off. It holds no random state: a
    forward pass in training mode takes ``rngs=nnx.Rngs(dropout=key)``.

    Args:
        config: every choice that the model's outputs depend on.
        rngs: parameters are drawn from its stream ``params``.
        dtype: of the computation; norm statistics and softmax are computed in at least float32.
        param_dtype: of the parameters.

    Raises:
        VitportError: for float64 without JAX's 64-bit mode.
    """

    def __init__(
        self,
        config: ViTConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        super().__init__(config, dtype=dtype, param_dtype=param_dtype)
        init = Init(rngs, dtype, param_dtype)
        c, D = config, config.embed_dim
        norm = partial(make_norm, config, init=init)
        self.cls_token = make_tokens(1, D, init=init) if c.class_token else None
        self.dist_token = make_tokens(1, D, init=init) if c.distilled else None
        self.reg_token = make_tokens(c.register_tokens, D, init=init) if c.register_tokens else None
        rows = c.num_positioned_prefix_tokens + c.num_patches
        self.pos_embed = None if c.pos_embed == "none" else make_tokens(rows, D, init=init)
        self.patch_embed = PatchEmbed(
            c.image_size,
            c.patch_size,
            c.in_channels,
            D,
            bias=c.patch_bias,
            pixel_norm=norm if c.pixel_norm else None,
            norm=norm if c.patch_norm else None,
            init=init,
        )
        self.pos_drop = Dropout(c.drop_rate)
        self.norm_pre = norm(D) if c.pre_norm else nnx.identity
        self.blocks = nnx.List(BLOCKS[c.block](c, rate, at, init=init) for at, rate in enumerate(c.drop_path_rates))
        self.norm = norm(D) if c.final_norm == "tokens" else nnx.identity
        pool = c.pool == "map"
        self.attn_pool = (
            AttentionPool(D, c.pool_heads, c.pool_hidden_dim, norm, c.activation, init=init) if pool else None
        )
        self.fc_norm = norm(D) if c.final_norm == "pooled" else nnx.identity
        self.pre_logits = (
            nnx.identity if c.pre_logits_dim is None else PreLogits(c.pooled_dim, c.pre_logits_dim, init=init)
        )
        self.reset_classifier(c.num_classes, rngs=rngs)

    @property
    def num_features(self) -> int:
        """Width of the vector that the head reads; of the output where ``num_classes`` is 0."""
        c = self.config
        return c.pooled_dim if c.pre_logits_dim is None else c.pre_logits_dim

    def reset_classifier(self, num_classes: int, pool: Pooling | None = None, *, rngs: nnx.Rngs | None = None) -> None:
        """Give the model new, freshly initialised heads, in place; the config follows.

        Args:
            num_classes: classes of the heads; 0 for none, so that the model gives features.
            pool: another pooling, for which the model must have the parameters; ``None`` keeps its own.
            rngs: its stream ``params`` is drawn from; ``None`` means ``nnx.Rngs(0)``, as in ``create_model``, so that
                every call draws the same head.

        Raises:
            VitportError: for a pooling that needs parameters that the model does not have.
        """
        if rngs is None:
            rngs = nnx.Rngs(0)
        c = self.config if pool is None else with_pool(self.config, pool)
        self.config = c = c.replace(num_classes=num_classes)
        init = Init(rngs, self.dtype, self.param_dtype)
        self.attn_pool = self.attn_pool if c.pool == "map" else None
        self.head = make_linear(self.num_features, num_classes, init=init) if num_classes else nnx.identity
        if c.distilled:
            self.head_dist = make_linear(self.num_features, num_classes, init=init) if num_classes else nnx.identity
        else:
            self.head_dist = None

    def embed(self, images: Float[Array, "B H W C"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """Images (B, H, W, C) -> the first block's input, (B, N, D).

        The tokens are [class, distillation, registers, patches], as far as the model has them. If the position table
        has rows for prefix tokens, then for the first ones: see ``vit_spec.PositionEmbedding``.
        """
        x = self.patch_embed(images)  # (B, patches, D)
        positioned = self.config.num_positioned_prefix_tokens
        position = None if self.pos_embed is None else self.pos_embed[...].astype(self.dtype)
        if position is not None:
            x = x + position[:, positioned:]
        prefix = [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]
        if prefix:
            tokens = jnp.concatenate([token[...].astype(self.dtype) for token in prefix], axis=1)  # (1, prefix, D)
            if position is not None and positioned:
                with_position = tokens[:, :positioned] + position[:, :positioned]
                tokens = jnp.concatenate([with_position, tokens[:, positioned:]], axis=1)
            x = jnp.concatenate([jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[1:])), x], axis=1)  # (B, N, D)
        return self.norm_pre(self.pos_drop(x, rngs=rngs))

    def segments(self) -> tuple[nnx.List]:
        """All blocks are one segment."""
        return (self.blocks,)

    @overload
    def forward_intermediates(
        self,
        images: Float[Array, "B H W C"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        return_prefix_tokens: bool = False,
        output_fmt: OutputFormat | None = None,
        intermediates_only: Literal[False] = False,
        rngs: DropoutKeys | None = None,
    ) -> tuple[Float[Array, "B N D"], Intermediates]: ...
    @overload
    def forward_intermediates(
        self,
        images: Float[Array, "B H W C"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        return_prefix_tokens: bool = False,
        output_fmt: OutputFormat | None = None,
        intermediates_only: Literal[True],
        rngs: DropoutKeys | None = None,
    ) -> Intermediates: ...
    def forward_intermediates(
        self,
        images: Float[Array, "B H W C"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        return_prefix_tokens: bool = False,
        output_fmt: OutputFormat | None = None,
        intermediates_only: bool = False,
        rngs: DropoutKeys | None = None,
    ) -> tuple[Float[Array, "B N D"], Intermediates] | Intermediates:
        """Images (B, H, W, C) -> the outputs of chosen blocks, in their order, with timm's arguments.

        Args:
            images: as for the model's call.
            indices: how many of the last blocks, or the numbers of blocks (negative ones from the end); all if
                ``None``.
            norm: apply the model's last norm to each; the identity where the norm comes after pooling.
            return_prefix_tokens: give pairs of patches and prefix tokens (B, prefix, D): class, distillation,
                registers.
            output_fmt: of the patches: maps "NCHW" (B, D, rows, columns) or "NHWC" (B, rows, columns, D), or tokens
                "NLC" (B, patches, D). ``None`` means maps in the order of the images' axes.
            intermediates_only: give the list alone, and run no block after the last chosen one.
            rngs: as for the model's call.

        Returns:
            The result of :meth:`forward_features` and the list of outputs.

        Raises:
            VitportError: for a block that the model does not have, or an unknown format.
        """
        self._check_rngs(rngs)
        taken, prefix = block_indices(indices, self.config.depth, "blocks"), self.config.num_prefix_tokens
        last = taken[-1] if intermediates_only else self.config.depth - 1
        x, found = self.embed(images, rngs=rngs), []
        for at, block in zip(range(last + 1), self.blocks, strict=False):
            x = self._run(block, x, rngs)
            if at in taken:
                found.append(self.norm(x) if norm else x)
        outputs = [as_format(tokens[:, prefix:], self.config.grid_size, output_fmt or "NHWC") for tokens in found]
        if return_prefix_tokens:
            outputs = [(patches, tokens[:, :prefix]) for patches, tokens in zip(outputs, found, strict=True)]
        return outputs if intermediates_only else (self.norm(x), outputs)

    def pool(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B _"]:
        """Tokens (B, N, D) -> the head's input, (B, D), or (B, 2 D) for ``token_avg``."""
        patches = tokens if self.config.pool_prefix else tokens[:, self.config.num_prefix_tokens :]
        if self.attn_pool is not None:
            return self.attn_pool(patches)
        if self.config.pool == "avg":
            return patches.mean(axis=1)
        if self.config.pool == "token_avg":
            return jnp.concatenate([tokens[:, 0], patches.mean(axis=1)], axis=-1)
        return tokens[:, 0]

    def forward_head(
        self, tokens: Float[Array, "B N D"]
    ) -> Float[Array, "B K"] | tuple[Float[Array, "B K"], Float[Array, "B K"]]:
        """Tokens (B, N, D) -> logits (B, K), or the pooled vector if ``num_classes`` is 0.

        A distilled model (Touvron et al. 2021, section 4) returns the logits of both heads, class head first, in
        training mode, and their mean in evaluation mode.
        """
        if self.head_dist is not None:
            x = self.fc_norm(tokens[:, :2])
            logits, logits_dist = self.head(x[:, 0]), self.head_dist(x[:, 1])
            return (logits + logits_dist) / 2 if self.deterministic else (logits, logits_dist)
        x = self.fc_norm(self.pool(tokens))
        return self.head(self.pre_logits(x))


class PreLogits(nnx.Module):
    """``tanh(fc(x))``, the hidden layer of ViT's pre-training head (Dosovitskiy et al. 2021, section 3.1).

    Args:
        dim: width of the pooled vector.
        representation_size: width R of the result.
        init: random numbers and dtypes.
    """

    def __init__(self, dim: int, representation_size: int, *, init: Init) -> None:
        self.fc = make_linear(dim, representation_size, init=init)
        self.act = jnp.tanh

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B R"]:
        """(B, D) -> (B, R)."""
        return self.act(self.fc(x))
