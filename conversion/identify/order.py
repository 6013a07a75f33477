"""The order of norms and layers where a format's names do not show it."""

from __future__ import annotations

from conversion.format import Format
from conversion.identify.resolve import Fact
from vit_spec import VitportError


def told_order(found: Format, norm_first: bool | None, *, known: bool) -> dict[str, Fact]:
    """What the caller says of the order in the file's blocks, as facts of the config.

    Args:
        found: the file's format.
        norm_first: what the caller says; ``None`` for nothing.
        known: whether the file itself says the order, by its own record or by a graph.

    Raises:
        VitportError: where names leave the order open and it is not stated; for post-norm blocks; where names show
            another order than the one given.
    """
    asked = found.either_order and not known
    if norm_first is None and asked:
        raise VitportError(
            f"The names of {found.name} are the same for both orders of norms and layers, and PyTorch's default is "
            "norm_first=False: say how the module was built with norm_first (--norm-first true, or false)."
        )
    if norm_first is False and asked:
        raise VitportError(
            "The file's blocks normalise the sums after their layers (post-norm, norm_first=False), which is not "
            "supported yet: vitport computes blocks that normalise the inputs of their layers (norm_first=True)."
        )
    if norm_first is False:
        origin = "its own record" if known else f"the names of {found.name}"
        raise VitportError(
            f"norm_first=False (--norm-first false) contradicts {origin}, by which blocks normalise the inputs of "
            "their layers: leave it out."
        )
    return {"block": Fact("sequential", "norm_first=True, as given")} if asked else {}
