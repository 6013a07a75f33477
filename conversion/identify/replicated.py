"""Parameters with a leading axis of devices: ``jax.pmap`` keeps a copy for each, and scripts save them all."""

from __future__ import annotations

from collections.abc import Mapping

from conversion.format import Format
from conversion.identify.heads import first_kernel
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import VitportError


def unreplicated(
    table: TensorTable, names: Mapping[str, str], format: Format, *, asked: bool
) -> tuple[TensorTable, tuple[str, ...]]:
    """The table with one copy of each tensor, and a note that says so; itself where there are no copies.

    Args:
        table: the file's tensors.
        names: name in the table → name relative to the model, of the tensors that may be copies.
        format: the format of the names.
        asked: whether the user wants one copy of several.

    Raises:
        VitportError: if there are several copies and nobody asked for one of them, if they differ, or if one is asked
            for and there are none.
    """
    count = _copies(table, names, format)
    if count is None:
        if asked:
            raise VitportError("The tensors have no axis of copies, one for each device: leave out --unreplicate.")
        return table, ()
    if count > 1 and not asked:
        raise VitportError(
            f"Every tensor has a first axis of {count}, as jax.pmap keeps a copy for each of {count} devices: take one "
            "of them, if all are equal, with --unreplicate (unreplicate=True)."
        )
    one = {name: _first(name, tensor) for name, tensor in table.tensors.items() if name in names and tensor.shape}
    return TensorTable(table.tensors | one), (f"took one of {count} equal copies, which jax.pmap kept for its devices",)


def _copies(table: TensorTable, names: Mapping[str, str], format: Format) -> int | None:
    """The length of the first axis of all tensors, if the patch kernel has one axis too many."""
    kernel = first_kernel(format.family)
    shapes = {bare: table.spec(name)[0] for name, bare in names.items()}
    foreign = format.names.foreign_name(kernel.name, len(kernel.shape))
    if len(shapes.get(foreign, ())) != len(kernel.shape) + 1:
        return None
    lengths = {shape[0] for shape in shapes.values() if shape}
    return lengths.pop() if len(lengths) == 1 else None


def _first(name: str, tensor: Tensor) -> Tensor:
    """The first copy, once it was compared with the others, bit by bit."""
    copies = tensor.read()
    if any(copy.tobytes() != copies[0].tobytes() for copy in copies[1:]):
        raise VitportError(
            f"The copies of {name} for different devices differ, so no one of them is the model: average them "
            "yourself, or take the checkpoint of one device."
        )
    return Tensor(tensor.shape[1:], tensor.dtype, lambda: tensor.read()[0])
