"""The frameworks that a command needs."""

from __future__ import annotations

from vit_spec import VitportError


def require_torch(command: str) -> None:
    """Say how to get PyTorch where it is missing."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise VitportError(
            f"`vitport {command}` runs PyTorch, which is not installed: pip install 'vitport[torch]'."
        ) from error
