"""The Swin Transformer, versions 1 (Liu et al. 2021) and 2 (Liu et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from vit_spec import OutputFormat, Stage, SwinConfig, VitportError, block_indices
from vit_spec.swin.initialization import initial_values
from vit_torch.layers.initialization import initialize, make_linear, make_tokens
from vit_torch.layers.maps import Intermediates, as_format
from vit_torch.layers.norm import make_layer_norm
from vit_torch.layers.patch_embed import PatchEmbed
from vit_torch.model import VisionModel
from vit_torch.swin.stage import SwinStage


class SwinTransformer(VisionModel[SwinConfig]):
    """The Swin Transformer that a config describes.

    The names of its parameters are those of ``vit_spec.parameters(config)``, timm's since its version 0.9. It starts in
    training mode; ``model.eval()`` turns dropout and stochastic depth off.

    Args:
        config: every choice that the model's outputs depend on.
    """

    layers: Any
    """The stages."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__(config)
        c, D = config, config.embed_dim
        norm = partial(make_layer_norm, eps=c.norm_eps)
        rows, columns = c.map_sizes[0]
        self.absolute_pos_embed = make_tokens(rows * columns, D) if c.absolute_pos_embed else None
        self.patch_embed = PatchEmbed(
            c.image_size,
            c.patch_size,
            c.in_channels,
            D,
            norm=partial(make_layer_norm, eps=c.patch_norm_eps) if c.patch_norm else None,
            pad=c.margin_rule == "pad",
        )
        self.pos_drop = nn.Dropout(c.drop_rate)
        self.layers = nn.ModuleList(SwinStage(c, stage) for stage in range(c.num_stages))
        self.stage_norms = nn.ModuleList(
            norm(width) if stage in c.stage_norms else nn.Identity() for stage, width in enumerate(c.widths[:-1])
        )
        self.norm = norm(c.num_features) if c.final_norm else nn.Identity()
        self.head = ClassifierHead(c.num_features, c.num_classes)
        initialize(self, initial_values(c))

    @property
    def num_features(self) -> int:
        """Width of the pooled features, which the head reads."""
        return self.config.num_features

    def reset_classifier(self, num_classes: int, pool: Any = None) -> None:
        """Give the model a new, freshly initialised head, in place; the config follows.

        Args:
            num_classes: classes of the head; 0 for none, so that the model gives features.
            pool: only "avg", the mean of all tokens, can be given.

        Raises:
            VitportError: for another pooling.
        """
        if pool not in (None, "avg"):
            raise VitportError(
                f"pool={pool!r} does not fit a Swin Transformer, which averages all tokens: leave it out."
            )
        self.config = c = self.config.replace(num_classes=num_classes)
        like = self.patch_embed.proj.weight
        place = {"device": None if like.is_meta else like.device, "dtype": like.dtype}  # a head is initialised for real
        self.head = ClassifierHead(c.num_features, num_classes).to(**place)
        values = initial_values(c).items()
        initialize(self, {it: drawn_from for it, drawn_from in values if it.stage is Stage.CLASSIFIER})

    def embed(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        """Images (B, C, H, W) -> the first block's input, tokens in row-major order, (B, N, D)."""
        x = self.patch_embed(images)
        if self.absolute_pos_embed is not None:
            x = x + self.absolute_pos_embed
        return self.pos_drop(x)

    def segments(self) -> list[nn.ModuleList]:
        """The blocks of each stage."""
        return [stage.blocks for stage in self.layers]

    def enter(self, segment: int, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B _ _"]:
        """Merges patches, but before the first stage: (B, N, D) -> (B, N / 4, 2 D)."""
        return self.layers[segment].downsample(tokens)

    def forward_intermediates(
        self,
        images: Float[Tensor, "B C H W"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        output_fmt: OutputFormat | None = None,
        intermediates_only: bool = False,
    ) -> tuple[Float[Tensor, "B N D"], Intermediates] | Intermediates:
        """Images (B, C, H, W) -> the outputs of chosen stages, in their order, with timm's arguments.

        Args:
            images: as for the model's call.
            indices: how many of the last stages, or the numbers of stages (negative ones from the end); all if
                ``None``.
            norm: apply the norms that the model has for them: its last one to the last stage, and ``stage_norms``.
            output_fmt: maps "NCHW" (B, D, rows, columns) or "NHWC" (B, rows, columns, D), or tokens "NLC" (B, N, D).
                ``None`` means maps in the order of the images' axes.
            intermediates_only: give the list alone, and run no stage after the last chosen one.

        Returns:
            The result of :meth:`forward_features` and the list of outputs.

        Raises:
            VitportError: for a stage that the model does not have, or an unknown format.
        """
        c = self.config
        taken, norms = block_indices(indices, c.num_stages, "stages"), [*self.stage_norms, self.norm]
        last = taken[-1] if intermediates_only else c.num_stages - 1
        x, found = self.embed(images), []
        for at, blocks in zip(range(last + 1), self.segments(), strict=False):
            x = self.enter(at, x)
            for block in blocks:
                x = self._run(block, x)
            if at in taken:
                found.append(as_format(norms[at](x) if norm else x, c.map_sizes[at], output_fmt or "NCHW"))
        return found if intermediates_only else (self.norm(x), found)

    def pool(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """The mean of all tokens, (B, N, D) -> (B, D)."""
        return tokens.mean(dim=1)

    def forward_head(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        """Tokens (B, N, D) -> logits (B, K), or the pooled features if ``num_classes`` is 0."""
        return self.head(self.pool(tokens))


class ClassifierHead(nn.Module):
    """A linear layer from pooled features to logits.

    Args:
        dim: width D of the features.
        num_classes: K; 0 for no layer.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.fc = make_linear(dim, num_classes) if num_classes else nn.Identity()

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """(B, D) -> (B, K)."""
        return self.fc(features)
