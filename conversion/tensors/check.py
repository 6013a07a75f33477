"""Checks that a table holds exactly the model's tensors; one error lists everything that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

from conversion.tensors.table import Shapes
from vit_spec import Config, VitportError, parameters
from vit_spec.printable import printable

_LONGEST_NAME, _COMPARED = 150, 20
"""Characters of a surplus name that are shown, and how many such names are compared with every known one."""
ForeignName = Callable[[str, int], str]
"""What a file calls the canonical name of a tensor with that many axes."""


def _same(canonical: str, axes: int) -> str:
    del axes
    return canonical


def check_complete(
    shapes: Shapes, config: Config, *, surplus: Sequence[str] = (), foreign_name: ForeignName = _same
) -> None:
    """Compare a canonical table with what the model needs.

    Args:
        shapes: canonical name → shape.
        config: the model.
        surplus: names in the file that its format does not know.
        foreign_name: for the message.

    Raises:
        VitportError: naming every missing, surplus and misshapen tensor, surplus ones with the nearest known name.
    """
    expected = {parameter.name: parameter.shape for parameter in parameters(config)}
    foreign = {name: foreign_name(name, len(shape)) for name, shape in (expected | dict(shapes)).items()}
    faults = [f"missing {_both(name, foreign)}" for name in expected if name not in shapes]
    faults += [
        f"{_both(name, foreign)} has shape {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    known = [foreign[name] for name in expected]
    for at, name in enumerate((*surplus, *(foreign[name] for name in shapes if name not in expected))):
        name = printable(name, _LONGEST_NAME)
        near = difflib.get_close_matches(name, known, n=1) if at < _COMPARED else ()
        faults.append(f"surplus {name}" + (f" (nearest known name: {near[0]})" if near else ""))
    if faults:
        count = f"{len(faults)} tensors do" if len(faults) > 1 else "1 tensor does"
        raise VitportError(f"{count} not fit the model: {'; '.join(faults)}.")


def check_known(surplus: Sequence[str], format_name: str) -> None:
    """Refuse a file with tensors that no model has, before anything is asked about it.

    Args:
        surplus: their names.
        format_name: for the message.

    Raises:
        VitportError: with their number and the first of them.
    """
    if surplus:
        first = ", ".join(printable(name, _LONGEST_NAME) for name in surplus[:3])
        count = f"{len(surplus)} tensors of it belong" if len(surplus) > 1 else "1 tensor of it belongs"
        raise VitportError(
            f"The file looks like {format_name}, but {count} to no model of that format ({first}): it is "
            "another architecture, or more than its model; give the weights of a Vision Transformer alone."
        )


def _both(canonical: str, foreign: Mapping[str, str]) -> str:
    there = foreign[canonical]
    return canonical if there == canonical else f"{canonical} (in the file: {there})"
