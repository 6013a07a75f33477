"""Which blocks' outputs are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from vit_spec.errors import VitportError

OutputFormat = Literal["NCHW", "NHWC", "NLC"]
"""How patches are laid out, in timm's words: maps, channels first or last, or tokens."""


def block_indices(indices: int | Sequence[int] | None, depth: int, what: str) -> tuple[int, ...]:
    """Rising numbers of blocks, from what timm's ``forward_intermediates`` is given.

    Args:
        indices: how many of the last blocks; or their numbers, negative ones from the end; or ``None`` for all.
        depth: how many the model has.
        what: the word for them, such as stages.

    Raises:
        VitportError: for a number that the model does not have, or none at all.
    """
    if indices is None:
        return tuple(range(depth))
    if isinstance(indices, int):
        if not 1 <= indices <= depth:
            raise VitportError(f"indices={indices} asks for the last {indices} {what}: choose from 1 to {depth}.")
        return tuple(range(depth - indices, depth))
    outside = [index for index in indices if not -depth <= index < depth]
    if outside or not indices:
        raise VitportError(
            f"indices={list(indices)} must name {what} of the model: it has {depth}, numbered from 0 to {depth - 1}, "
            f"or from -{depth} to -1."
        )
    return tuple(sorted({index % depth for index in indices}))


def check_output_format(output_fmt: str) -> None:
    """Refuse a format that is not one of :data:`OutputFormat`.

    Raises:
        VitportError: naming all formats.
    """
    if output_fmt not in get_args(OutputFormat):
        raise VitportError(f"output_fmt={output_fmt!r} is unknown: choose one of {', '.join(get_args(OutputFormat))}.")
