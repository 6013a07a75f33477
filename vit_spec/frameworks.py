"""The frameworks that a function needs, and how to get them."""

from __future__ import annotations

from importlib.util import find_spec

from vit_spec.errors import VitportError


def require_torch(what: str) -> None:
    """Say how to install PyTorch where it is missing.

    Args:
        what: the command or call that needs it.

    Raises:
        VitportError: if PyTorch is not installed.
    """
    if find_spec("torch") is None:
        raise VitportError(f"`{what}` runs PyTorch, which is not installed: pip install 'vitport[torch]'.")
