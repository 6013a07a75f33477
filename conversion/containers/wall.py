"""The wall around every reader of bytes from outside: whatever a library raises becomes one sentence with the path.

Damaged and hostile bytes make parsers raise nearly anything, at opening and at reading. Here, and nowhere else, that is
turned into :class:`vit_spec.VitportError`; the cause is kept for Python users.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from conversion.containers.file_checks import first_line
from conversion.source import Source
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import VitportError

Reader = Callable[..., Source]


@contextmanager
def wall(path: str | Path, fault: str) -> Iterator[None]:
    """Raise every error about the bytes of a file as one sentence.

    Args:
        path: the file or folder.
        fault: what is wrong with it, after its path: ``is not a complete ONNX file``.

    Raises:
        VitportError: instead of anything else but ``OSError``, which is about the disk or permissions.
    """
    try:
        yield
    except (VitportError, OSError):
        raise
    except MemoryError as error:
        raise VitportError(
            f"{path} needs more memory than there is: check its origin and size, or use a larger machine."
        ) from error
    except Exception as error:
        raise VitportError(f"{path} {fault} ({first_line(error)}): fetch or write it again.") from error


def walled(what: str) -> Callable[[Callable[..., Source]], Reader]:
    """A decorator for a container's ``read``: opening the file, and each later reading of a tensor, behind the wall.

    Args:
        what: the kind of file, as in ``safetensors file``.
    """

    def decorated(read: Callable[..., Source]) -> Reader:
        @functools.wraps(read)
        def behind(path: Path, weights_key: str | None = None) -> Source:
            with wall(path, f"is not a complete {what}"):
                source = read(path, weights_key)
            tensors = {name: _behind(path, name, it) for name, it in source.table.tensors.items()}
            return replace(source, table=TensorTable(tensors))

        return behind

    return decorated


def _behind(path: Path, name: str, tensor: Tensor) -> Tensor:
    def guarded(call: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def read(*at: int) -> np.ndarray:
            try:
                with wall(path, f"is damaged at {name}"):
                    return call(*at)
            except OSError as error:
                raise VitportError(
                    f"{path} cannot be read ({error.strerror or error}): check the file and its permissions."
                ) from error

        return read

    entry = None if tensor.read_entry is None else guarded(tensor.read_entry)
    return replace(tensor, read=guarded(tensor.read), read_entry=entry)
