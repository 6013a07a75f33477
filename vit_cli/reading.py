"""Arguments that several subcommands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_parity import Original

ImageSize = Annotated[int | tuple[int, int] | None, tyro.conf.arg(metavar="PIXELS")]
"""Side, or height and width, of the images; ``None`` keeps the weights' own."""

Json = Annotated[bool, tyro.conf.arg(name="json")]


@dataclass(frozen=True)
class Reading:
    """How to read weights whose file leaves something open."""

    model: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME", help="Registered name (`vitport models`), for facts that the weights do not tell."
        ),
    ] = None
    format: Annotated[
        str | None,
        tyro.conf.arg(
            name="from",
            metavar="FORMAT",
            help="Naming scheme of the weights, instead of the recognised one; an unknown one lists them all.",
        ),
    ] = None
    weights_key: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="KEY", help="Entry to read of a PyTorch training checkpoint that holds several sets of weights."
        ),
    ] = None

    def load(self, path: str, image_size: int | tuple[int, int] | None = None) -> Checkpoint:
        """The checkpoint at ``path``, its position table resized to ``image_size`` (pixels) where given."""
        import conversion

        checkpoint = conversion.load(path, format=self.format, model=self.model, weights_key=self.weights_key)
        return conversion.prepare(None, weights=checkpoint, image_size=image_size)

    def original(self, path: str, checkpoint: Checkpoint) -> Original:
        """What was read, with how it was read, for those who read it again in their own way."""
        from conversion.hub import local
        from vit_parity import Original

        return Original(local(path), checkpoint, self.format, self.weights_key)


Options = tyro.conf.OmitArgPrefixes[Reading]
