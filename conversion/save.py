"""From a :class:`Checkpoint` to a path: written aside, flushed to disk, then renamed into place."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from conversion.changes.activation import ActivationChoice, with_activation
from conversion.changes.vit.restate import restated
from conversion.checkpoint import Checkpoint
from conversion.destination import beside, writable_weights
from conversion.format import Format, Writer
from conversion.format_words import INSTEAD
from conversion.formats import FORMATS
from conversion.identify.recognise import get_formats
from conversion.limits import check_reader_defaults, dropped, helpful_options
from conversion.tensors import buffers
from conversion.tensors.check import check_complete
from conversion.tensors.finite import not_finite, watched
from conversion.tensors.table import TensorTable
from vit_spec import Config, UnfitError, VitportError

Progress = Callable[[str, int, int], None]
"""``progress(name, done, total)``, called as each tensor is written."""


def save(
    checkpoint: Checkpoint,
    path: str | Path,
    *,
    format: str,
    activation: ActivationChoice | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write a checkpoint in a named format, or in the first format of a group that can hold it.

    The destination appears complete or not at all; an old one is replaced only when the new one is complete.

    Args:
        checkpoint: what to write; its tensors are read and written one by one.
        path: the file or folder to write.
        format: a name in ``FORMATS``, or of a group such as ``huggingface``.
        activation: the form of GELU to write, where readers of the format run the other one by default: ``keep`` the
            model's own, or ``erf`` or ``tanh``. ``None`` refuses where the choice must be made; see docs/converting.md.
        overwrite: replace the destination if it is a file of weights, or a folder of nothing but what the format
            writes; anything else is refused. A link stays, and what it points to is replaced.
        progress: called as each tensor is written.

    Returns:
        In sentences: what the file does not say or says differently, and tensors with values that are NaN or infinite.

    Raises:
        VitportError: if the format is only read or cannot hold the model, ``activation`` must be chosen, or the
            destination exists or cannot be written.
    """
    given, path = (
        path,
        writable_weights(path, get_formats(format), overwrite=overwrite, sources=checkpoint.provenance.files),
    )
    told = len(checkpoint.provenance.notes)
    checkpoint = with_activation(checkpoint, activation or "keep")
    target, writer, checkpoint = _target(format, checkpoint)
    notes = (*checkpoint.provenance.notes[told:], *check_reader_defaults(checkpoint, target, activation))
    check_complete(checkpoint.params.shapes, checkpoint.config)
    # Count while writing: reading every tensor once more would cost as much as converting it.
    not_finite_in: dict[str, int] = {}
    params = watched(_stored(checkpoint, target), not_finite_in)
    table = target.names.write(params, checkpoint.config)
    written: list[str] = []

    def count(name: str) -> None:
        if progress is not None:
            progress(name, len(written), len(table))
        written.append(name)

    aside = beside(path, "partial")
    _remove(aside)  # of a run that was killed
    try:
        with buffers.kept():
            writer(aside, table, checkpoint, count)
        _flush(aside)
        _replace(aside, path)
    except OSError as error:
        raise VitportError(
            f"{given} cannot be written ({error.strerror or error}): choose a folder with free space and write access."
        ) from error
    finally:
        _remove(aside)
    if progress is not None:
        progress("", len(table), len(table))
    if target.computed_otherwise is not None:
        notes += tuple(target.computed_otherwise(checkpoint))
    useless = [not_finite(name, count) for name, count in not_finite_in.items() if count]
    lost = [f"not written: {what}" for what in dropped(checkpoint, target, table.shapes)]
    return (*notes, *useless, *lost)


def _stored(checkpoint: Checkpoint, target: Format) -> TensorTable:
    """The tensors without those that the format's code computes."""
    if target.computed is None:
        return checkpoint.params
    computed = target.computed(checkpoint.params, checkpoint.config.image_size)
    for name, tensor in computed.items():
        if not np.array_equal(checkpoint.params[name], tensor.read()):
            raise UnfitError(
                f"{target.name} cannot hold {name}, which is not the fixed table that its code computes: choose "
                "another format, such as timm.",
                [],
            )
    return checkpoint.params.without(set(computed))


def _target(name: str, checkpoint: Checkpoint) -> tuple[Format, Writer, Checkpoint]:
    """The format to write, and the checkpoint as it holds it: with zeros and ones where that changes no output."""
    unfit: list[tuple[Format, list[str]]] = []
    family = checkpoint.config.family
    for target in (target for target in get_formats(name) if target.family == family):
        if target.writer is None:
            instead = INSTEAD.get(target.name)
            writable = instead or f"one of {', '.join(sorted(it.name for it in FORMATS.values() if it.can_write))}"
            raise VitportError(f"{target.name} is read but not written: choose {writable}.")
        unsupported = target.cannot_hold(checkpoint.config)
        if not unsupported:
            return target, target.writer, checkpoint
        unfit.append((target, unsupported))
    if not unfit:
        raise VitportError(f"{name} holds no models of the family {family}: choose one of {', '.join(_of(family))}.")
    found = [(target, restated(checkpoint, target.cannot_hold)) for target, _ in unfit]
    held = [(target, target.writer, same) for target, same in found if target.writer is not None and same is not None]
    if held:  # the one that needs the fewest additions
        return min(held, key=lambda it: len(it[2].provenance.notes))
    raise _refusal(name, checkpoint.config, unfit)


def _refusal(name: str, config: Config, unfit: Sequence[tuple[Format, list[str]]]) -> VitportError:
    """What the asked format cannot hold, and the options that would make it fit; of a group, the nearest first."""
    options = {target.name: helpful_options(config, target.cannot_hold) for target, _ in unfit}

    def distance(entry: tuple[Format, list[str]]) -> tuple[bool, bool, int, int]:
        helpful, complaints = options[entry[0].name], entry[1]
        return not helpful, "--head drop" in helpful, len(helpful), len(complaints)

    (nearest, complaints), *others = sorted(unfit, key=distance)
    helpful = " ".join(options[nearest.name])
    which = f"{nearest.name}, the nearest of {name}," if others else nearest.name
    remedy = f", or add {helpful}" if helpful else ""
    lines = [
        f"{target.name} cannot hold {'; nor '.join(lost)}"
        + (f" (it could with {' '.join(options[target.name])})" if options[target.name] else "")
        for target, lost in others
    ]
    return UnfitError(
        f"{which} cannot hold {'; nor '.join(complaints)}: choose another format, such as timm{remedy}.", lines
    )


def _of(family: str) -> list[str]:
    """The formats that models of a family can be written in, by the names that users give."""
    own = (target for target in FORMATS.values() if target.family == family and target.can_write)
    return sorted({target.group or target.name for target in own})


def _flush(path: Path) -> None:
    for entry in [path, *path.rglob("*")]:
        _sync(entry)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders,
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # and flushes only what may be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(aside: Path, path: Path) -> None:
    """Rename into place; what a rename does not replace, a folder or what a folder replaces, moves aside first."""
    if path.is_dir() or (path.exists() and aside.is_dir()):
        old = beside(path, "old")
        path.rename(old)
        try:
            aside.rename(path)
        except BaseException:
            old.rename(path)
            raise
        _remove(old)
    else:
        aside.replace(path)
    _sync(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for _ in range(5):  # a writer's thread may still add a file
            shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
