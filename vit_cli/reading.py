"""Arguments that several subcommands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from conversion import Checkpoint

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
            metavar="KEY",
            help="Entry to read of a checkpoint that holds several sets of weights, such as trainer.ema, or a step.",
        ),
    ] = None
    unreplicate: Annotated[
        bool, tyro.conf.arg(help="Take one of the copies that jax.pmap keeps for each device, if all are equal.")
    ] = False

    norm_first: Annotated[
        Literal["true", "false"] | None,
        tyro.conf.arg(help="Whether blocks norm the inputs of their layers, for names that do not show it."),
    ] = None

    rename: Annotated[
        str | None,
        tyro.conf.arg(metavar="RULES.yaml", help="Rules for weights under names of your own; see docs/renaming.md."),
    ] = None

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of :func:`conversion.load` and :func:`conversion.convert`."""
        order = None if self.norm_first is None else self.norm_first == "true"
        return vars(self) | {"norm_first": order}

    def load(self, path: str, image_size: int | tuple[int, int] | None = None) -> Checkpoint:
        """The checkpoint at ``path``, its position table resized to ``image_size`` (pixels) where given."""
        import conversion

        checkpoint = conversion.load(path, **self.options)
        return conversion.prepare(None, weights=checkpoint, image_size=image_size)


Options = tyro.conf.OmitArgPrefixes[Reading]
