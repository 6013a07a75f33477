"""What holds for every format that ships. Oracle: the sources themselves, and files of every flavour."""

from __future__ import annotations

import ast
import builtins
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conversion import FORMATS, formats
from conversion.identify.recognise import recognise
from conversion.tensors.table import TensorTable
from tests.conversion.test_roundtrips import FLAVOURS, holders, params_for
from vit_spec import ViTConfig, VitportError

SOURCES = [
    Path(module.__file__ or "")
    for family in pkgutil.iter_modules(formats.__path__, "conversion.formats.")
    for entry in pkgutil.iter_modules(importlib.import_module(family.name).__path__, f"{family.name}.")
    if hasattr(module := importlib.import_module(entry.name), "FORMAT")
]
FAMILY_MODULES = {path.stem for path in SOURCES}
"""Names of modules, of which only the attribute that is read counts."""
SHARED = {"replace", "dict", "PartNames", "SecondReading", *dir(builtins)}


def test_every_file_of_a_format_is_found_and_has_a_second_reading() -> None:
    assert len(SOURCES) == len(FORMATS)
    assert all(entry.second_reading is not None for entry in FORMATS.values())
    assert all(name in FORMATS for entry in FORMATS.values() for name in entry.before)


def _loaded(node: ast.AST) -> Iterator[str]:
    """Names that an expression reads, with their attributes."""
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute):
            yield ast.unparse(child)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load) and child.id not in FAMILY_MODULES:
            yield child.id


def _needs(node: ast.AST, known: dict[str, ast.AST]) -> set[str]:
    """Everything that an expression is made of, followed through the module's own names."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        for name in _loaded(waiting.pop()):
            if name not in found | SHARED:
                found.add(name)
                waiting += [known[name]] if name in known else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=[path.stem for path in SOURCES])
def test_rules_and_second_reading_are_made_of_nothing_in_common(path: Path) -> None:
    tree = ast.parse(path.read_text())
    known: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = node.value
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            known[node.name] = node
    declared = known["FORMAT"]
    assert isinstance(declared, ast.Call)
    parts = {keyword.arg: keyword.value for keyword in declared.keywords}
    rules, second = (_needs(parts[name], known) for name in ("names", "second_reading"))
    assert not rules & second


def _precedes(first: str, later: str) -> bool:
    before = FORMATS[first].before
    return later in before or any(_precedes(between, later) for between in before)


@pytest.mark.parametrize("flavour", list(FLAVOURS))
def test_of_two_formats_that_fit_a_file_one_is_declared_to_come_first(flavour: str) -> None:
    sizes = {"image_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_hidden_dim": 48}
    config = ViTConfig().replace(**sizes | {"num_classes": 5} | FLAVOURS[flavour])
    table = TensorTable.of(params_for(config, np.dtype(np.float32)))
    for name in holders(config):
        computed = FORMATS[name].computed
        stored = table if computed is None else table.without(set(computed(table, config.image_size)))
        written = FORMATS[name].names.write(stored, config)
        for other in (other for other, entry in FORMATS.items() if other == name or not entry.by_class):
            try:
                recognise(written, other)
            except VitportError:
                continue
            assert other == name or FORMATS[name].by_class or _precedes(name, other)
