"""Arguments that several subcommands share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vit_spec import VitportError
from vit_spec.vit.config import Activation, FinalNorm, NormKind, Pooling, PositionEmbedding

if TYPE_CHECKING:
    import conversion
    from conversion import Checkpoint


def _height_x_width(words: Sequence[str]) -> tuple[int, int]:
    sides = re.fullmatch(r"(\d+)x(\d+)", words[0])
    if sides is None:
        raise ValueError(f"{words[0]} is not a size")
    return int(sides[1]), int(sides[2])


_Crossed = Annotated[
    tuple[int, int],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="HEIGHTxWIDTH",
        instance_from_str=_height_x_width,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: ["x".join(map(str, value))],
    ),
]
ImageSize = Annotated[int | _Crossed | tuple[int, int] | None, tyro.conf.arg(metavar="PIXELS")]
"""Side, or height and width (``64 32`` or ``64x32``), of the images; ``None`` keeps the weights' own."""


def _windows(words: Sequence[str]) -> tuple[tuple[int, int], ...]:
    found = [re.fullmatch(r"(\d+)(?:x(\d+))?", word) for word in words[0].split(",")]
    if len(found) < 2 or None in found:
        raise ValueError(f"{words[0]} are not sizes")
    return tuple((int(sides[1]), int(sides[2] or sides[1])) for sides in found if sides)


_PerStage = Annotated[
    tuple[tuple[int, int], ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="TOKENS,TOKENS,...",
        instance_from_str=_windows,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(f"{height}x{width}" for height, width in value)],
    ),
]
WindowSize = Annotated[int | _Crossed | tuple[int, int] | _PerStage | None, tyro.conf.arg(metavar="TOKENS")]
"""Side, or height and width, of the windows of all stages, or of each (``7,7,14x7,7``); ``None`` keeps them."""

Json = Annotated[bool, tyro.conf.arg(name="json")]


def check_limit(fail_above: float | None) -> None:
    """
    Raises:
        VitportError: for a limit that nothing, or everything, is above.
    """
    if fail_above is not None and not fail_above >= 0:
        raise VitportError(f"--fail-above must be a relative difference, 0 or more; got {fail_above:g}.")


@dataclass(frozen=True)
class Files:
    """How to read weights whose file leaves something open."""

    model: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME", help="Registered name (`vitport models`), for facts that the weights do not tell."
        ),
    ] = None
    config: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="FILE",
            help="What the weights are: JSON with fields of the config, transformers' or timm's config.json, or an "
            "options file (YAML) of microsoft/Swin-Transformer.",
        ),
    ] = None
    base: Annotated[
        str | None, tyro.conf.arg(metavar="PATH", help="Weights that an adapter of peft (LoRA) changes.")
    ] = None
    heads: Annotated[int | None, tyro.conf.arg(metavar="N", help="Fact: the attention's heads.")] = None
    eps: Annotated[float | None, tyro.conf.arg(metavar="X", help="Fact: the norms' epsilon.")] = None
    pool: Annotated[Pooling | None, tyro.conf.arg(help="Fact: what the head reads.")] = None
    norm: Annotated[NormKind | None, tyro.conf.arg(help="Fact: the kind of norm, where it has no bias.")] = None
    qk_scale: Annotated[float | None, tyro.conf.arg(metavar="X", help="Fact: the factor on attention logits.")] = None
    pos_embed: Annotated[
        PositionEmbedding | None, tyro.conf.arg(help="Fact: which tokens the position table has rows for.")
    ] = None
    final_norm: Annotated[FinalNorm | None, tyro.conf.arg(help="Fact: where the last norm sits.")] = None
    pool_prefix: Annotated[
        bool | None, tyro.conf.arg(help="Fact: whether pooling runs over all tokens, not only over patches.")
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
        tyro.conf.arg(help="Whether blocks normalise the inputs of their layers, for names that do not show it."),
    ] = None

    rename: Annotated[
        str | None,
        tyro.conf.arg(metavar="RULES.yaml", help="Rules for weights under names of your own; see docs/renaming.md."),
    ] = None

    @property
    def facts(self) -> dict[str, Any]:
        """What was stated about the weights, by the names of ``ViTConfig``'s fields."""
        names = {"heads": "num_heads", "eps": "norm_eps"}
        files = ("model", "config", "base", "format", "weights_key", "unreplicate", "norm_first", "rename")
        given = {it.name: getattr(self, it.name) for it in fields(self) if it.name not in files}
        return {names.get(name, name): value for name, value in given.items() if value is not None}

    @property
    def options(self) -> conversion.Reading:
        """Arguments of :func:`conversion.load`."""
        return {
            "model": self.model,
            "config": self.config,
            "base": self.base,
            "facts": self.facts,
            "format": self.format,
            "weights_key": self.weights_key,
            "unreplicate": self.unreplicate,
            "norm_first": None if self.norm_first is None else self.norm_first == "true",
            "rename": self.rename,
        }

    def load(self, path: str, image_size: int | tuple[int, int] | None = None, *, several: bool = False) -> Checkpoint:
        """See :func:`conversion.load_sized.load_sized`."""
        from conversion.load_sized import load_sized

        return load_sized(path, image_size, several=several, **self.options)


@dataclass(frozen=True)
class Reading(Files):
    """The same where no option changes the activation."""

    activation: Annotated[Activation | None, tyro.conf.arg(help="Fact: the MLP's activation.")] = None


@dataclass(frozen=True)
class OfOwnSize(Reading):
    """The same where no option changes the image size."""

    image_size: Annotated[
        ImageSize, tyro.conf.arg(help="Fact: pixels, a side or height and width, of the position table.")
    ] = None


Options = tyro.conf.OmitArgPrefixes[Reading]
SizedOptions = tyro.conf.OmitArgPrefixes[OfOwnSize]
FileOptions = tyro.conf.OmitArgPrefixes[Files]
