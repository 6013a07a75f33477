"""The order of norms and layers where a format's names do not show it."""

from __future__ import annotations

from conversion.format import Format
from conversion.identify.resolve import Fact
from vit_spec import VitportError

_KINDS = {True: "sequential", False: "original"}
"""PyTorch's ``norm_first`` → ``vit_spec.BlockKind``."""
_NORMED = {"post_norm": "the outputs of their layers", "original": "the sums after their layers"}
"""What a kind of block normalises, if not the inputs of its layers."""


def told_order(found: Format, norm_first: bool | None, stated: str | None) -> dict[str, Fact]:
    """What the caller says of the order in the file's blocks, as facts of the config.

    Args:
        found: the file's format.
        norm_first: what the caller says; ``None`` for nothing.
        stated: the kind of block by the file's own record, by a graph or by a config; ``None`` if nothing states it.

    Raises:
        VitportError: where names leave the order open and it is not stated; where the file shows another order than the
            one given.
    """
    if stated is None and found.either_order:
        if norm_first is None:
            raise VitportError(
                f"The names of {found.name} are the same for both orders of norms and layers, and PyTorch's default is "
                "norm_first=False: say how the module was built with norm_first (--norm-first true, or false)."
            )
        return {"block": Fact(_KINDS[norm_first], f"norm_first={norm_first}, as given")}
    normed = _NORMED.get(stated or "", "the inputs of their layers")
    if norm_first is not None and normed != _NORMED.get(_KINDS[norm_first], "the inputs of their layers"):
        origin = f"the names of {found.name}" if stated is None else "what is known of the file"
        raise VitportError(
            f"norm_first={norm_first} (--norm-first {str(norm_first).lower()}) contradicts {origin}, by which blocks "
            f"normalise {normed}: leave it out."
        )
    return {}
