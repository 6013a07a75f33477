"""Checks that a table holds exactly the model's tensors; one error lists everything that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from conversion.tensors.table import Shapes
from vit_spec import ViTConfig, VitportError, parameters


def check_complete(
    shapes: Shapes, config: ViTConfig, *, surplus: Sequence[str] = (), foreign_name: Callable[[str], str] = str
) -> None:
    """Compare a canonical table with what the model needs.

    Args:
        shapes: canonical name → shape.
        config: the model.
        surplus: names in the file that its format does not know.
        foreign_name: from a canonical name to the file's, for the message.

    Raises:
        VitportError: naming every missing, surplus and misshapen tensor, surplus ones with the nearest known name.
    """
    expected = {parameter.name: parameter.shape for parameter in parameters(config)}
    faults = [f"missing {_both(name, foreign_name)}" for name in expected if name not in shapes]
    faults += [
        f"{_both(name, foreign_name)} has shape {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    known = [foreign_name(name) for name in expected]
    for name in (*surplus, *(foreign_name(name) for name in shapes if name not in expected)):
        near = difflib.get_close_matches(name, known, n=1)
        faults.append(f"surplus {name}" + (f" (nearest known name: {near[0]})" if near else ""))
    if faults:
        count = f"{len(faults)} tensor{'s' if len(faults) > 1 else ''}"
        raise VitportError(f"{count} do not fit the model: {'; '.join(faults)}.")


def _both(canonical: str, foreign_name: Callable[[str], str]) -> str:
    foreign = foreign_name(canonical)
    return canonical if foreign == canonical else f"{canonical} (in the file: {foreign})"
