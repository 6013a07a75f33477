"""What the models of all families have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vit_jax.layers.dropout import DropoutKeys
from vit_spec import Config, VitportError

C = TypeVar("C", bound=Config)
Logits = Array | tuple[Array, Array]


class VisionModel(nnx.Module, Generic[C]):
    """A model of any family: from images to tokens, through segments of blocks, to logits.

    A family's model has the methods ``embed``, ``segments``, ``forward_intermediates``, ``forward_head`` and
    ``reset_classifier``, the layer ``norm`` and the property ``num_features``. If tokens change between two segments,
    as where Swin merges patches, it has ``enter`` too.

    Args:
        config: every choice that the model's outputs depend on.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    norm: Callable[[Array], Array]
    """Applied to the tokens after the last block."""

    def __init__(self, config: C, *, dtype: DTypeLike, param_dtype: DTypeLike) -> None:
        self.config = config
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.deterministic = False
        self.grad_checkpointing = False

    @property
    def num_features(self) -> int:
        """Width of the vector that the head reads; of the output where ``num_classes`` is 0."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int, pool: Any = None, *, rngs: nnx.Rngs) -> None:
        """Give the model a new, freshly initialised head, in place; the config follows."""
        raise NotImplementedError

    def embed(self, images: Float[Array, "B H W C"], *, rngs: DropoutKeys | None = None) -> Float[Array, "B ..."]:
        """Images (B, H, W, C) -> tokens."""
        raise NotImplementedError

    def segments(self) -> Sequence[nnx.List]:
        """The blocks, as ``vit_spec.segments(config)`` groups them."""
        raise NotImplementedError

    def enter(self, segment: int, tokens: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        """Tokens -> the input of the first block of a segment: the same tokens, unless the family changes them."""
        return tokens

    def forward_features(
        self, images: Float[Array, "B H W C"], *, rngs: DropoutKeys | None = None
    ) -> Float[Array, "B ..."]:
        """Images (B, H, W, C) -> tokens after the last block and ``norm``; for a ViT (B, N, D)."""
        self._check_rngs(rngs)
        x = self.embed(images, rngs=rngs)
        for at, blocks in enumerate(self.segments()):
            x = self.enter(at, x)
            for block in blocks:
                x = self._run(block, x, rngs)
        return self.norm(x)

    def forward_intermediates(self, *args: Any, **options: Any) -> Any:
        """Images -> the outputs of chosen blocks, or stages; each family says which, and how they are laid out."""
        raise NotImplementedError

    def stages(
        self,
        images: Float[Array, "B H W C"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        rngs: DropoutKeys | None = None,
    ) -> list[Float[Array, "B rows columns D"]]:
        """Images -> maps for a detector or a segmenter on top, each (B, rows, columns, D).

        Args:
            images: as for the model's call.
            indices: which outputs, as for :meth:`forward_intermediates`: stages of a Swin Transformer, blocks of a ViT.
            norm: apply the norms that the model has for them.
            rngs: as for the model's call.

        Raises:
            VitportError: for an output that the model does not have.
        """
        return self.forward_intermediates(images, indices, norm=norm, intermediates_only=True, rngs=rngs)

    def forward_head(self, tokens: Float[Array, "B ..."]) -> Logits:
        """Tokens -> logits (B, K), or the pooled vector if ``num_classes`` is 0."""
        raise NotImplementedError

    def __call__(
        self, images: Float[Array, "B H W C"], *, rngs: DropoutKeys | None = None
    ) -> Float[Array, "B K"] | tuple[Float[Array, "B K"], Float[Array, "B K"]]:
        """Images (B, H, W, C) -> the result of :meth:`forward_head`.

        Args:
            images: of any float dtype; the computation is in the model's ``dtype``.
            rngs: has the stream ``dropout``; required in training mode if a drop rate is above 0.

        Raises:
            VitportError: if the images' shape does not fit the config, or ``rngs`` is missing.
        """
        return self.forward_head(self.forward_features(images, rngs=rngs))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Choose whether to keep no more than each block's input for the backward pass (Chen et al. 2016).

        The backward pass runs each block once more, dropout included: gradients stay the same, training needs less
        memory and about a third more time.
        """
        self.grad_checkpointing = enable

    def _run(self, block: Callable[..., Array], x: Array, rngs: DropoutKeys | None) -> Array:
        return _checkpoint(block, x, rngs) if self.grad_checkpointing else block(x, rngs=rngs)

    def _check_rngs(self, rngs: DropoutKeys | None) -> None:
        c = self.config
        if rngs is None and not self.deterministic and max(c.drop_rate, c.attn_drop_rate, c.drop_path_rate) > 0:
            raise VitportError(
                f"A forward pass in training mode with drop_rate={c.drop_rate}, attn_drop_rate={c.attn_drop_rate}, "
                f"drop_path_rate={c.drop_path_rate} needs rngs=nnx.Rngs(dropout=key): pass it, or call model.eval()."
            )


def _checkpoint(block: Callable[..., Array], x: Array, rngs: DropoutKeys | None) -> Array:
    return nnx.remat(lambda block, x, rngs: block(x, rngs=rngs))(block, x, rngs)
