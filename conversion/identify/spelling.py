"""Names whose parts are joined in another way than the format joins them, brought to the format's way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from conversion.tensors.table import TensorTable

_KEYSTR = re.compile(r"\['([^']*)'\]|\[(\d+)\]|\.([A-Za-z_]\w*)")
"""A part of what ``jax.tree_util.keystr`` makes of a path: ``['params']``, ``[0]``, ``.params``."""
_JOINTS = {"\\": "/", "->": "/", "::": "/", "__": "/", "|": "/", ":": "/", ">": "/", " ": "/", "//": "/"}


def spellings(table: TensorTable) -> Iterator[tuple[TensorTable, tuple[str, ...]]]:
    """The table as it is, then with its names joined in other ways, each with a note that says how."""
    yield table, ()
    for said, respell in _respellings(list(table)):
        names = {name: respell(name) for name in table}
        if len(set(names.values())) == len(names) and any(name != new for name, new in names.items()):
            yield table.renamed(names.__getitem__), (f"read the names as paths, whose parts the file joins by {said}",)


def _respellings(names: list[str]) -> Iterator[tuple[str, Callable[[str], str]]]:
    if any(name.startswith(("[", ".")) for name in names):
        yield "brackets", lambda name: "/".join(map("".join, _KEYSTR.findall(name))) or name
    if any(name.startswith("('") for name in names):
        yield "commas", lambda name: "/".join(re.findall(r"'([^']*)'", name)) or name
    for joint, ours in _JOINTS.items():
        if any(joint in name for name in names):
            yield repr(joint), lambda name, joint=joint, ours=ours: name.replace(joint, ours)
    if any("." in name for name in names):
        yield "dots", lambda name: name.replace(".", "/")
    if any("/" in name for name in names):
        yield "slashes", lambda name: name.replace("/", ".")
