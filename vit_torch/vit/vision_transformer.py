"""The Vision Transformer (Dosovitskiy et al. 2021), with the options of its descendants."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_spec import OutputFormat, Pooling, ViTConfig, block_indices, with_pool
from vit_torch.layers.attention_pool import AttentionPool
from vit_torch.layers.initialization import make_linear, make_tokens
from vit_torch.layers.maps import Intermediates, as_format
from vit_torch.layers.norm import make_norm
from vit_torch.layers.patch_embed import PatchEmbed
from vit_torch.model import VisionModel
from vit_torch.vit.block import Block, OriginalBlock, PostNormBlock
from vit_torch.vit.branched_block import BranchedBlock
from vit_torch.vit.parallel_block import ParallelBlock

BLOCKS = {
    "sequential": Block,
    "post_norm": PostNormBlock,
    "original": OriginalBlock,
    "parallel": ParallelBlock,
    "branched": BranchedBlock,
}


class VisionTransformer(VisionModel[ViTConfig]):
    """The Vision Transformer that a config describes.

    The names of its parameters are those of ``vit_spec.parameters(config)``, timm's classic ones. It starts in training
    mode; ``model.eval()`` turns dropout and stochastic depth off.

    Args:
        config: every choice that the model's outputs depend on.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        c, D = config, config.embed_dim
        norm = partial(make_norm, config)
        self.cls_token = make_tokens(1, D) if c.class_token else None
        self.dist_token = make_tokens(1, D) if c.distilled else None
        self.reg_token = make_tokens(c.register_tokens, D) if c.register_tokens else None
        rows = c.num_positioned_prefix_tokens + c.num_patches
        self.pos_embed = None if c.pos_embed == "none" else make_tokens(rows, D)
        self.patch_embed = PatchEmbed(
            c.image_size,
            c.patch_size,
            c.in_channels,
            D,
            bias=c.patch_bias,
            pixel_norm=norm if c.pixel_norm else None,
            norm=norm if c.patch_norm else None,
        )
        self.pos_drop = nn.Dropout(c.drop_rate)
        self.norm_pre = norm(D) if c.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(BLOCKS[c.block](c, rate, at) for at, rate in enumerate(c.drop_path_rates))
        self.norm = norm(D) if c.final_norm == "tokens" else nn.Identity()
        pool = c.pool == "map"
        self.attn_pool = AttentionPool(D, c.pool_heads, c.pool_hidden_dim, norm, c.activation) if pool else None
        self.fc_norm = norm(D) if c.final_norm == "pooled" else nn.Identity()
        self.pre_logits = nn.Identity() if c.pre_logits_dim is None else PreLogits(c.pooled_dim, c.pre_logits_dim)
        self.reset_classifier(c.num_classes)

    @property
    def num_features(self) -> int:
        """Width of the vector that the head reads; of the output where ``num_classes`` is 0."""
        c = self.config
        return c.pooled_dim if c.pre_logits_dim is None else c.pre_logits_dim

    def reset_classifier(self, num_classes: int, pool: Pooling | None = None) -> None:
        """Give the model new, freshly initialised heads, in place; the config follows.

        Args:
            num_classes: classes of the heads; 0 for none, so that the model gives features.
            pool: another pooling, for which the model must have the parameters; ``None`` keeps its own.

        Raises:
            VitportError: for a pooling that needs parameters that the model does not have.
        """
        c = self.config if pool is None else with_pool(self.config, pool)
        self.config = c = c.replace(num_classes=num_classes)
        self.attn_pool = self.attn_pool if c.pool == "map" else None
        like = self.patch_embed.proj.weight
        place = {"device": None if like.is_meta else like.device, "dtype": like.dtype}  # a head is initialised for real
        self.head = make_linear(self.num_features, num_classes).to(**place) if num_classes else nn.Identity()
        if c.distilled:
            self.head_dist = make_linear(self.num_features, num_classes).to(**place) if num_classes else nn.Identity()
        else:
            self.head_dist = None

    def embed(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        """Images (B, C, H, W) -> the first block's input, (B, N, D).

        The tokens are [class, distillation, registers, patches], as far as the model has them. If the position table
        has rows for prefix tokens, then for the first ones: see ``vit_spec.PositionEmbedding``.
        """
        x = self.patch_embed(images)  # (B, patches, D)
        positioned = self.config.num_positioned_prefix_tokens
        if self.pos_embed is not None:
            x = x + self.pos_embed[:, positioned:]
        prefix: list[Tensor] = [
            token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None
        ]
        if prefix:
            tokens = torch.cat(prefix, dim=1)  # (1, prefix, D)
            if self.pos_embed is not None and positioned:
                with_position = tokens[:, :positioned] + self.pos_embed[:, :positioned]
                tokens = torch.cat([with_position, tokens[:, positioned:]], dim=1)
            x = torch.cat([tokens.expand(x.shape[0], -1, -1), x], dim=1)  # (B, N, D)
        return self.norm_pre(self.pos_drop(x))

    def segments(self) -> tuple[nn.ModuleList]:
        """All blocks are one segment."""
        return (self.blocks,)

    @overload
    def forward_intermediates(
        self,
        images: Float[Tensor, "B C H W"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        return_prefix_tokens: bool = False,
        output_fmt: OutputFormat | None = None,
        intermediates_only: Literal[False] = False,
    ) -> tuple[Float[Tensor, "B N D"], Intermediates]: ...
    @overload
    def forward_intermediates(
        self,
        images: Float[Tensor, "B C H W"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        return_prefix_tokens: bool = False,
        output_fmt: OutputFormat | None = None,
        intermediates_only: Literal[True],
    ) -> Intermediates: ...
    def forward_intermediates(
        self,
        images: Float[Tensor, "B C H W"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        return_prefix_tokens: bool = False,
        output_fmt: OutputFormat | None = None,
        intermediates_only: bool = False,
    ) -> tuple[Float[Tensor, "B N D"], Intermediates] | Intermediates:
        """Images (B, C, H, W) -> the outputs of chosen blocks, in their order, with timm's arguments.

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

        Returns:
            The result of :meth:`forward_features` and the list of outputs.

        Raises:
            VitportError: for a block that the model does not have, or an unknown format.
        """
        taken, prefix = block_indices(indices, self.config.depth, "blocks"), self.config.num_prefix_tokens
        last = taken[-1] if intermediates_only else self.config.depth - 1
        x, found = self.embed(images), []
        for at, block in zip(range(last + 1), self.blocks, strict=False):
            x = self._run(block, x)
            if at in taken:
                found.append(self.norm(x) if norm else x)
        outputs = [as_format(tokens[:, prefix:], self.config.grid_size, output_fmt or "NCHW") for tokens in found]
        if return_prefix_tokens:
            outputs = [(patches, tokens[:, :prefix]) for patches, tokens in zip(outputs, found, strict=True)]
        return outputs if intermediates_only else (self.norm(x), outputs)

    def pool(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B _"]:
        """Tokens (B, N, D) -> the head's input, (B, D), or (B, 2 D) for ``token_avg``."""
        patches = tokens if self.config.pool_prefix else tokens[:, self.config.num_prefix_tokens :]
        if self.attn_pool is not None:
            return self.attn_pool(patches)
        if self.config.pool == "avg":
            return patches.mean(dim=1)
        if self.config.pool == "token_avg":
            return torch.cat([tokens[:, 0], patches.mean(dim=1)], dim=-1)
        return tokens[:, 0]

    def forward_head(
        self, tokens: Float[Tensor, "B N D"]
    ) -> Float[Tensor, "B K"] | tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Tokens (B, N, D) -> logits (B, K), or the pooled vector if ``num_classes`` is 0.

        A distilled model (Touvron et al. 2021, section 4) returns the logits of both heads, class head first, in
        training mode, and their mean in evaluation mode.
        """
        if self.head_dist is not None:
            x = self.fc_norm(tokens[:, :2])
            logits, logits_dist = self.head(x[:, 0]), self.head_dist(x[:, 1])
            return (logits, logits_dist) if self.training else (logits + logits_dist) / 2
        x = self.fc_norm(self.pool(tokens))
        return self.head(self.pre_logits(x))


class PreLogits(nn.Module):
    """``tanh(fc(x))``, the hidden layer of ViT's pre-training head (Dosovitskiy et al. 2021, section 3.1).

    Args:
        dim: width of the pooled vector.
        representation_size: width R of the result.
    """

    def __init__(self, dim: int, representation_size: int) -> None:
        super().__init__()
        self.fc = make_linear(dim, representation_size)
        self.act = torch.tanh

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B R"]:
        """(B, D) -> (B, R)."""
        return self.act(self.fc(x))
