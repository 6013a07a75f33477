"""Errors of writing to a work directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conversion.store import StoreError
from vit_spec import VitportError


class UnwrittenError(VitportError):
    """Something could not be written to the work directory, and the run cannot go on."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of writing a file into an :class:`UnwrittenError`.

    Raises:
        UnwrittenError: if the disk is full, or the directory is gone or not writable.
    """
    try:
        yield
    except StoreError as error:
        raise UnwrittenError(f"{path} cannot be written: {error}") from error
    except OSError as error:
        raise UnwrittenError(
            f"{error.filename or path} cannot be written ({error.strerror or error}): check free space and "
            "permissions, and run again."
        ) from error
