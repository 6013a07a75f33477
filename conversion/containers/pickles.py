"""What a pickle holds, by the names of modules in it, and how its owner can save the same without one.

A pickle is a program. It is never run here: its instructions are listed, which ``pickletools`` does.
"""

from __future__ import annotations

import itertools
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MOST = 200_000
"""Instructions to look at; the first class of a library comes early."""
_LIBRARIES = re.compile(r"(torch|numpy|jax|jaxlib|flax|joblib|ml_dtypes)(\.[\w.]+)?(\s|$)")


def remedy(path: Path) -> str:
    """What to do with a pickle that is not opened, in the words of what made it."""
    found = _libraries(path)
    if "torch" in found or _is_zip(path):
        return "save its state_dict alone, with torch.save(model.state_dict(), …) or as safetensors"
    if found & {"numpy", "jax", "jaxlib", "flax", "joblib"}:
        opened = f"joblib.load({path.name!r})" if "joblib" in found else f"pickle.load(open({path.name!r}, 'rb'))"
        return (
            "it holds arrays of NumPy or JAX. If you trust its origin, save them without a pickle: "
            f"{flat_arrays(path, opened)}"
        )
    return "save its arrays alone, as safetensors or with numpy.savez"


def flat_arrays(path: Path, opened: str) -> str:
    """The Python expression that saves a tree of arrays as an ``.npz`` file of plain ones."""
    target = f"{path.stem}_arrays.npz"
    return f"numpy.savez({target!r}, **flax.traverse_util.flatten_dict({opened}, sep='/'))"


def _libraries(path: Path) -> set[str]:
    found: set[str] = set()
    try:
        with path.open("rb") as file:
            for text in _texts(file):
                if match := _LIBRARIES.match(text):
                    found.add(match[1])
    except Exception:  # a damaged pickle raises nearly anything; what was seen so far counts
        return found
    return found


def _texts(file: BinaryIO) -> Iterator[str]:
    for _, argument, _ in itertools.islice(pickletools.genops(file), _MOST):
        if isinstance(argument, str) and len(argument) < 1000:
            yield argument


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except OSError:
        return False
