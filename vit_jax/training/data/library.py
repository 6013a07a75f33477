"""Imports grain on demand, because its import is slow."""

from __future__ import annotations

from typing import Any

from vit_spec import VitportError


def load_grain() -> Any:
    """grain, ready for programs that do not use absl.

    Raises:
        VitportError: if it is not installed.
    """
    try:
        import grain
        from absl import flags
    except ImportError as error:
        raise VitportError("Reading data sets needs grain: pip install 'vitport[train]'.") from error
    if not flags.FLAGS.is_parsed():  # grain reads absl flags, which programs without absl never parse
        flags.FLAGS.mark_as_parsed()
    return grain
