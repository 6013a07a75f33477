"""Which columns of a table hold images and labels, and what its own description says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.training.data.sources.labels import numbered
from vit_spec import VitportError

_IMAGES, _LABELS = ("image", "img"), ("label", "labels")
"""Usual column names, for files that do not describe their columns."""


def columns(schema: Any, name: str) -> tuple[str, str]:
    """The names of the columns of images and of labels.

    Raises:
        VitportError: if there are none, or they hold something else.
    """
    from pyarrow import types

    described = _description(schema, name)
    image = _column(schema, described, "Image", _IMAGES, name)
    label = _column(schema, described, "ClassLabel", _LABELS, name)
    for column in (image, label):
        if schema.names.count(column) != 1:
            raise VitportError(f"{name} has {schema.names.count(column)} columns called {column}: keep one.")
    kind = schema.field(image).type
    kinds = [kind.field(at) for at in range(kind.num_fields)] if types.is_struct(kind) else []
    content = next((field.type for field in kinds if field.name == "bytes"), kind)
    if not (types.is_binary(content) or types.is_large_binary(content)):
        raise VitportError(f"{name} has {kind} in the column {image}, and no bytes of image files: store them in it.")
    kind = schema.field(label).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise VitportError(f"{name} has {kind} in the column {label}: give numbers or names as labels.")
    return image, label


def _description(schema: Any, name: str) -> dict[str, Any]:
    """Column → its description by ``datasets``."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        found = json.loads(text) if text is not None else {}
        for key in ("info", "features"):
            found = found.get(key, {})
        return {column: dict(facts) for column, facts in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise VitportError(
            f"{name} describes itself in the schema's metadata (huggingface), but not by JSON objects: remove that."
        ) from error


def _column(schema: Any, described: dict[str, Any], kind: str, usual: Sequence[str], name: str) -> str:
    """The column of this kind; among several, or without a description, the one with a usual name."""
    kinds = [column for column in schema.names if described.get(column, {}).get("_type") == kind]
    candidates = kinds if len(kinds) == 1 else [column for column in usual if column in (kinds or schema.names)]
    if not candidates:
        what = f"only one of {', '.join(kinds)}" if kinds else f"a column called {usual[0]}"
        raise VitportError(f"{name} has the columns {', '.join(schema.names)}: keep {what}, for the {kind}.")
    return candidates[0]


def leaves(schema: Any, name: str) -> list[str]:
    """Where images and labels lie: other columns can hold lists, of which a few bytes stand for millions of values."""
    image, label = columns(schema, name)
    kind = schema.field(image).type
    inner = [kind.field(at).name for at in range(kind.num_fields)]
    return [label, *(f"{image}.{part}" for part in ("bytes", "path") if part in inner)] if inner else [label, image]


def check_columns(schema: Any, first: Any, image: str, label: str, name: str) -> None:
    """
    Raises:
        VitportError: if a file has other columns than the first.
    """
    for column in (image, label):
        if schema.names.count(column) != 1 or schema.field(column).type != first.field(column).type:
            raise VitportError(f"{name} has files whose column {column} differs: give files that belong together.")


def labels_in(
    tables: Sequence[Any], schema: Any, label: str, classes: tuple[str, ...] | None, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of all rows, int32 (n,), and class names, which the schema may describe.

    Raises:
        VitportError: for rows without a label, for descriptions that are none, and as :func:`numbered` does.
    """
    if any(table.column(label).null_count for table in tables):
        raise VitportError(f"{name} has rows without a {label}: remove them.")
    values = np.concatenate([table.column(label).to_numpy() for table in tables])
    names = _description(schema, name).get(label, {}).get("names")
    if classes is None and names:
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise VitportError(f"{name} describes classes that are not a list of names: correct its description.")
        classes = tuple(names)
    return numbered(values, classes, name)
