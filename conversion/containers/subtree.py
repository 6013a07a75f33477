"""One branch of a table whose names are paths, for files that hold more than one set of weights."""

from __future__ import annotations

from pathlib import Path

from conversion.tensors.table import TensorTable
from vit_spec import VitportError


def branch(path: Path, table: TensorTable, key: str | None) -> tuple[TensorTable, tuple[str, ...]]:
    """The tensors whose names begin with ``key/``, and a note that says so; everything if no key is given.

    A key of several parts may have dots between them: ``state.params`` for ``state/params``.

    Raises:
        VitportError: if nothing lies under the key; the message lists the keys that exist.
    """
    if key is None:
        return table, ()
    starts = tuple(key.rstrip("/") + "/" for key in (key, key.replace(".", "/")))
    kept = TensorTable({name: tensor for name, tensor in table.tensors.items() if name.startswith(starts)})
    if not kept:
        keys = sorted({name.partition("/")[0] for name in table})
        raise VitportError(f"{path} has no weights under {key!r}: choose one of {', '.join(keys[:8])}.")
    return kept, (f"read the weights under {key!r}, as asked",)
