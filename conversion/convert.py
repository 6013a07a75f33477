"""From a file of weights to a file of another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from conversion.changes.changes import Changes
from conversion.checkpoint import Checkpoint
from conversion.destination import writable_weights
from conversion.identify.recognise import get_formats
from conversion.load import load
from conversion.opening import Opening, Reading
from conversion.save import Progress, save
from conversion.store.put import check_free, made_here
from vit_spec.address import in_store


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` read, changed and wrote."""

    path: str
    """The source, as it was given."""
    opening: Opening
    """How it was opened."""
    changes: Changes
    source: Checkpoint
    """As read."""
    changed: Checkpoint
    """As written."""
    destination: str | Path
    result: Checkpoint
    """As read back from the destination."""
    notes: tuple[str, ...]
    """The changes, and what the destination's format does not hold, in sentences."""
    renamed: bool = False
    """Whether the source was read by the user's own rules."""


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: str,
    changes: Changes | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **reading: Unpack[Reading],
) -> Conversion:
    """Read weights, change what is asked for, write them in another format, and read the result back.

    Args:
        source: a file or folder of any known format, here or in a bucket, or ``hf://owner/name[@revision]``.
        destination: the file or folder to write, here or in a bucket.
        to: name of the format to write, or of a family of formats.
        changes: what to change on the way; ``None`` for nothing.
        overwrite: replace the destination if it is a file of weights, or a folder of nothing but what ``to`` writes.
        progress: called as each tensor is written.
        reading: what the source leaves open, as of :func:`conversion.load`.

    Raises:
        VitportError: if the source cannot be read, a change is impossible, or the destination cannot be written.
    """
    changes = changes or Changes()
    if in_store(destination):
        get_formats(to)
        check_free(str(destination), overwrite=overwrite)
    else:
        destination = Path(destination)
        sources = (it for it in (source, reading.get("base")) if it is not None and not in_store(it))
        writable_weights(destination, get_formats(to), overwrite=overwrite, sources=map(Path, sources))
    fresh = changes.head == "drop" or (changes.head == "zero" and changes.num_classes is not None)
    size = {} if changes.image_size is None else {"image_size": changes.image_size}
    read = load(source, if_unstated=size, need_head=not fresh, **reading)
    changed = changes.apply(read)
    with made_here(destination, overwrite=overwrite) as path:
        notes = save(changed, path, format=to, activation=changes.activation, overwrite=overwrite, progress=progress)
    result = load(destination, model=changed.config)  # what can be read back whole has been written
    said = changed.provenance.notes[len(read.provenance.notes) :]
    return Conversion(
        path=str(source),
        opening=Opening.of(reading),
        changes=changes,
        source=read,
        changed=changed,
        destination=destination,
        result=result,
        notes=(*said, *notes),
        renamed=reading.get("rename") is not None,
    )
