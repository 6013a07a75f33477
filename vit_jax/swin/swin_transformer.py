"""The Swin Transformer, versions 1 (Liu et al. 2021) and 2 (Liu et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vit_jax.layers.dropout import Dropout, DropoutKeys
from vit_jax.layers.initialization import Init, initialize, make_linear, make_tokens
from vit_jax.layers.maps import Intermediates, as_format
from vit_jax.layers.norm import make_layer_norm
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.model import VisionModel
from vit_jax.swin.stage import SwinStage
from vit_spec import OutputFormat, Stage, SwinConfig, VitportError, block_indices
from vit_spec.swin.initialization import initial_values


class SwinTransformer(VisionModel[SwinConfig]):
    """The Swin Transformer that a config describes.

    The paths of its parameters follow ``vit_spec.parameters(config)``, timm's names since its version 0.9, with Flax's
    leaf names. It starts in training mode; ``model.eval()`` turns dropout and stochastic depth off. It holds no random
    state: a forward pass in training mode takes ``rngs=nnx.Rngs(dropout=key)``.

    Args:
        config: every choice that the model's outputs depend on.
        rngs: parameters are drawn from its stream ``params``.
        dtype: of the computation; norm statistics, softmax and version 2's bias are computed in at least float32.
        param_dtype: of the parameters.

    Raises:
        VitportError: for float64 without JAX's 64-bit mode.
    """

    layers: Any
    """The stages."""

    def __init__(
        self,
        config: SwinConfig,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        super().__init__(config, dtype=dtype, param_dtype=param_dtype)
        init = Init(rngs, dtype, param_dtype)
        c, D = config, config.embed_dim
        norm = partial(make_layer_norm, eps=c.norm_eps, init=init)
        rows, columns = c.map_sizes[0]
        self.absolute_pos_embed = make_tokens(rows * columns, D, init=init) if c.absolute_pos_embed else None
        self.patch_embed = PatchEmbed(
            c.image_size,
            c.patch_size,
            c.in_channels,
            D,
            norm=partial(make_layer_norm, eps=c.patch_norm_eps, init=init) if c.patch_norm else None,
            pad=c.margin_rule == "pad",
            init=init,
        )
        self.pos_drop = Dropout(c.drop_rate)
        self.layers = nnx.List(SwinStage(c, stage, init=init) for stage in range(c.num_stages))
        self.stage_norms = nnx.List(
            norm(width) if stage in c.stage_norms else nnx.identity for stage, width in enumerate(c.widths[:-1])
        )
        self.norm = norm(c.num_features) if c.final_norm else nnx.identity
        self.head = ClassifierHead(c.num_features, c.num_classes, init=init)
        initialize(self, initial_values(c), init=init)

    @property
    def num_features(self) -> int:
        """Width of the pooled features, which the head reads."""
        return self.config.num_features

    def reset_classifier(self, num_classes: int, pool: Any = None, *, rngs: nnx.Rngs | None = None) -> None:
        """Give the model a new, freshly initialised head, in place; the config follows.

        Args:
            num_classes: classes of the head; 0 for none, so that the model gives features.
            pool: only "avg", the mean of all tokens, can be given.
            rngs: its stream ``params`` is drawn from; ``None`` means ``nnx.Rngs(0)``, as in ``create_model``.

        Raises:
            VitportError: for another pooling.
        """
        if rngs is None:
            rngs = nnx.Rngs(0)
        if pool not in (None, "avg"):
            raise VitportError(
                f"pool={pool!r} does not fit a Swin Transformer, which averages all tokens: leave it out."
            )
        self.config = c = self.config.replace(num_classes=num_classes)
        init = Init(rngs, self.dtype, self.param_dtype)
        self.head = ClassifierHead(c.num_features, num_classes, init=init)
        values = initial_values(c).items()
        initialize(self, {it: drawn_from for it, drawn_from in values if it.stage is Stage.CLASSIFIER}, init=init)

    def embed(self, images: Float[Array, "B H W C"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B N D"]:
        """Images (B, H, W, C) -> the first block's input, tokens in row-major order, (B, N, D)."""
        x = self.patch_embed(images)
        if self.absolute_pos_embed is not None:
            x = x + self.absolute_pos_embed[...].astype(self.dtype)
        return self.pos_drop(x, rngs=rngs)

    def segments(self) -> list[nnx.List]:
        """The blocks of each stage."""
        return [stage.blocks for stage in self.layers]

    def enter(self, segment: int, tokens: Float[Array, "B N D"]) -> Float[Array, "B _ _"]:
        """Merges patches, but before the first stage: (B, N, D) -> (B, N / 4, 2 D)."""
        return self.layers[segment].downsample(tokens)

    def forward_intermediates(
        self,
        images: Float[Array, "B H W C"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        output_fmt: OutputFormat | None = None,
        intermediates_only: bool = False,
        rngs: DropoutKeys | None = None,
    ) -> tuple[Float[Array, "B N D"], Intermediates] | Intermediates:
        """Images (B, H, W, C) -> the outputs of chosen stages, in their order, with timm's arguments.

        Args:
            images: as for the model's call.
            indices: how many of the last stages, or the numbers of stages (negative ones from the end); all if
                ``None``.
            norm: apply the norms that the model has for them: its last one to the last stage, and ``stage_norms``.
            output_fmt: maps "NCHW" (B, D, rows, columns) or "NHWC" (B, rows, columns, D), or tokens "NLC" (B, N, D).
                ``None`` means maps in the order of the images' axes.
            intermediates_only: give the list alone, and run no stage after the last chosen one.
            rngs: as for the model's call.

        Returns:
            The result of :meth:`forward_features` and the list of outputs.

        Raises:
            VitportError: for a stage that the model does not have, or an unknown format.
        """
        self._check_rngs(rngs)
        c = self.config
        taken, norms = block_indices(indices, c.num_stages, "stages"), [*self.stage_norms, self.norm]
        last = taken[-1] if intermediates_only else c.num_stages - 1
        x, found = self.embed(images, rngs=rngs), []
        for at, blocks in zip(range(last + 1), self.segments(), strict=False):
            x = self.enter(at, x)
            for block in blocks:
                x = self._run(block, x, rngs)
            if at in taken:
                found.append(as_format(norms[at](x) if norm else x, c.map_sizes[at], output_fmt or "NHWC"))
        return found if intermediates_only else (self.norm(x), found)

    def pool(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        """The mean of all tokens, (B, N, D) -> (B, D)."""
        return tokens.mean(axis=1)

    def forward_head(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B K"]:
        """Tokens (B, N, D) -> logits (B, K), or the pooled features if ``num_classes`` is 0."""
        return self.head(self.pool(tokens))


class ClassifierHead(nnx.Module):
    """A linear layer from pooled features to logits.

    Args:
        dim: width D of the features.
        num_classes: K; 0 for no layer.
        init: random numbers and dtypes.
    """

    def __init__(self, dim: int, num_classes: int, *, init: Init) -> None:
        self.fc = make_linear(dim, num_classes, init=init) if num_classes else nnx.identity

    def __call__(self, features: Float[Array, "B D"]) -> Float[Array, "B K"]:
        """(B, D) -> (B, K)."""
        return self.fc(features)
