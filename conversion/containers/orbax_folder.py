"""A Flax parameter tree in an orbax checkpoint. This module alone knows orbax."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.flax_tree import flatten, nest
from conversion.source import Source
from conversion.table import TensorTable
from vit_spec import VitportError

_OWN = "vitport.json"
_PARAMS = "params"


def recognises(path: Path) -> bool:
    """A folder that :func:`write` made, or an orbax checkpoint itself."""
    return (path / _OWN).is_file() or (path / "_METADATA").is_file()


def read(path: Path, weights_key: str | None = None) -> Source:
    """Restore a tree as numpy arrays, whatever devices it was saved from.

    A tree of NNX states, which keep each array under ``value``, is read too.
    """
    import orbax.checkpoint as ocp

    del weights_key  # a checkpoint holds one tree
    own = json.loads((path / _OWN).read_text()) if (path / _OWN).is_file() else None
    folder = (path / _PARAMS if own else path).resolve()
    handler = ocp.PyTreeCheckpointer()
    try:
        metadata = handler.metadata(folder).item_metadata
        tree = {} if metadata is None else metadata.tree
        arguments = _map(tree, lambda _: ocp.RestoreArgs(restore_type=np.ndarray))
        restored = handler.restore(folder, restore_args=arguments) if tree else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VitportError(f"{path} is no whole orbax checkpoint ({first_line}): save it again.") from error
    if not tree:
        raise VitportError(f"{path} is no whole orbax checkpoint (it has no tree of arrays): save it again.")
    flat = {name.removesuffix("/value"): np.asarray(array) for name, array in flatten(restored).items()}
    files = tuple(sorted(file for file in path.rglob("*") if file.is_file()))
    return Source(path, "orbax checkpoint", TensorTable.of(flat), files, own=own)


def write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
    """Write a table of Flax paths as one orbax tree, with our JSON beside it."""
    import orbax.checkpoint as ocp

    arrays: dict[str, np.ndarray] = {}
    for name in table:
        progress(name)
        arrays[name] = table[name]
    path.mkdir()
    ocp.PyTreeCheckpointer().save((path / _PARAMS).resolve(), nest(arrays))
    (path / _OWN).write_text(json.dumps(checkpoint.record(), indent=2))


def _map(tree: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    return {key: _map(node, function) if isinstance(node, Mapping) else function(node) for key, node in tree.items()}
