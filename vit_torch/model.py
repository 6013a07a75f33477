"""What the models of all families have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vit_spec import Config

C = TypeVar("C", bound=Config)
Logits = Tensor | tuple[Tensor, Tensor]


class VisionModel(nn.Module, Generic[C]):
    """A model of any family: from images to tokens, through segments of blocks, to logits.

    A family's model has the methods ``embed``, ``segments``, ``forward_intermediates``, ``forward_head`` and
    ``reset_classifier``, the layer ``norm`` and the property ``num_features``. If tokens change between two segments,
    as where Swin merges patches, it has ``enter`` too.

    Args:
        config: every choice that the model's outputs depend on.
    """

    norm: Callable[[Tensor], Tensor]
    """Applied to the tokens after the last block."""

    def __init__(self, config: C) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpointing = False

    @property
    def num_features(self) -> int:
        """Width of the vector that the head reads; of the output where ``num_classes`` is 0."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int, pool: Any = None) -> None:
        """Give the model a new, freshly initialised head, in place; the config follows."""
        raise NotImplementedError

    def embed(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B ..."]:
        """Images (B, C, H, W) -> tokens."""
        raise NotImplementedError

    def segments(self) -> Sequence[nn.ModuleList]:
        """The blocks, as ``vit_spec.segments(config)`` groups them."""
        raise NotImplementedError

    def enter(self, segment: int, tokens: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Tokens -> the input of the first block of a segment: the same tokens, unless the family changes them."""
        return tokens

    def forward_features(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B ..."]:
        """Images (B, C, H, W) -> tokens after the last block and ``norm``; for a ViT (B, N, D)."""
        x = self.embed(images)
        for at, blocks in enumerate(self.segments()):
            x = self.enter(at, x)
            for block in blocks:
                x = self._run(block, x)
        return self.norm(x)

    def forward_intermediates(self, *args: Any, **options: Any) -> Any:
        """Images -> the outputs of chosen blocks, or stages; each family says which, and how they are laid out."""
        raise NotImplementedError

    def stages(
        self,
        images: Float[Tensor, "B C H W"],
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
    ) -> list[Float[Tensor, "B D rows columns"]]:
        """Images -> maps for a detector or a segmenter on top, each (B, D, rows, columns).

        Args:
            images: as for the model's call.
            indices: which outputs, as for :meth:`forward_intermediates`: stages of a Swin Transformer, blocks of a ViT.
            norm: apply the norms that the model has for them.

        Raises:
            VitportError: for an output that the model does not have.
        """
        return self.forward_intermediates(images, indices, norm=norm, intermediates_only=True)

    def forward_head(self, tokens: Float[Tensor, "B ..."]) -> Logits:
        """Tokens -> logits (B, K), or the pooled vector if ``num_classes`` is 0."""
        raise NotImplementedError

    def forward(
        self, images: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B K"] | tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Images (B, C, H, W) -> the result of :meth:`forward_head`."""
        return self.forward_head(self.forward_features(images))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Choose whether to keep no more than each block's input for the backward pass (Chen et al. 2016).

        The backward pass runs each block once more, dropout included: gradients stay the same, training needs less
        memory and about a third more time.
        """
        self.grad_checkpointing = enable

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing else block(x)
