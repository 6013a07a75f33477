"""Paths that a user names for us to write: what may stand there, and what may be replaced.

Nothing is replaced that this project could not have written: a file that holds no weights, or a folder with one entry
more than the format writes, stays as it is. Links are followed, so they stay links; devices and pipes are refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from conversion.containers import ENDINGS, holds_weights
from conversion.containers.model_card import CARD, is_ours
from conversion.format import FolderWriter, Format
from conversion.store import Objects
from vit_spec import VitportError
from vit_spec.address import in_store

_NO_WEIGHTS = (".onnx", ".h5", ".hdf5", ".keras", ".gguf", ".tflite", ".pt2", ".stablehlo")
"""Endings of names of files that no format writes."""


def writable_file(path: str | Path, sources: Iterable[str | Path] = (), ending: str = "") -> Path:
    """A new or regular file in a folder that exists, its links followed.

    Args:
        path: of a report, image, certificate or the like.
        sources: files or folders that the same command reads or writes, which are not replaced.
        ending: of the name, so that no file of another kind is replaced by a slip.

    Returns:
        The absolute path without links.

    Raises:
        VitportError: for a folder, a device, a pipe or a source, or where no file of that name can be made.
    """
    path = Path(path)
    found = _followed(path)
    if found.is_dir():
        raise VitportError(f"{path} cannot be written: it is a folder; give a file name in a folder that exists.")
    if any(os.path.realpath(source) == str(found) for source in sources):
        raise VitportError(f"{path} is another file of this command and would be replaced: choose another name.")
    if not path.name.lower().endswith(ending):
        raise VitportError(f"{path} cannot be written: its name must end in {ending}.")
    return found


def check_writable(path: str, sources: Iterable[str | Path] = (), ending: str = "") -> None:
    """The same for what may also be the address of an object; its store is asked, so that a refusal costs no work.

    Raises:
        VitportError: as :func:`writable_file` does, and if the store cannot be read.
    """
    if not in_store(path):
        writable_file(path, sources, ending)
        return
    if path in map(str, sources):
        raise VitportError(f"{path} is another file of this command and would be replaced: choose another name.")
    if path.endswith("/") or not path.lower().endswith(ending):
        raise VitportError(f"{path} cannot be written: its name must end in {ending or 'the name of an object'}.")
    objects, name = Objects.holding(path)
    objects.versions([name])


def write_file(path: str | Path, content: bytes) -> None:
    """Write a file, or an object of a bucket, that appears complete or not at all.

    Raises:
        VitportError: as :func:`writable_file`, and where the disk or the store does not take it.
    """
    if in_store(path):
        objects, name = Objects.holding(str(path))
        objects.write(name, content)
        return
    with written_aside(path) as aside:
        aside.write_bytes(content)


@contextlib.contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """A path to write instead of ``path``, which it replaces at the end; after an error nothing has changed.

    Raises:
        VitportError: as :func:`writable_file`, and where the disk does not take it.
    """
    found = writable_file(path)
    aside = beside(found, "partial")
    try:
        yield aside
        aside.replace(found)
    except OSError as error:
        raise VitportError(
            f"{path} cannot be written ({error.strerror or error}): choose a writable path with enough space."
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def beside(path: Path, ending: str) -> Path:
    """A name of this process in the same folder, no longer than names may be."""
    return path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:200])}.{os.getpid()}.{ending}")


def writable_weights(
    path: str | Path, formats: Iterable[Format], *, overwrite: bool, sources: Iterable[Path] = ()
) -> Path:
    """Where weights may be written: nothing is there, or what ``overwrite`` may replace.

    Args:
        path: the file or folder to write.
        formats: one of them will be written.
        overwrite: allow a file of weights, or a folder of nothing but what one of ``formats`` writes, to be replaced.
        sources: files or folders that are read, which are never replaced.

    Returns:
        The absolute path without links.

    Raises:
        VitportError: if something else is there, a source would be replaced, the name says another kind of file, or
            nothing of that name can be made.
    """
    path, formats = Path(path), list(formats)
    found = _followed(path)
    if not found.exists():
        _check_ending(path, formats)
        return found
    if not overwrite:
        raise VitportError(f"{path} exists already: choose another destination, or pass overwrite=True (--overwrite).")
    for source in sources:
        read = Path(os.path.realpath(source))
        if read.is_relative_to(found):
            where = "is the source" if read == found else f"holds the source {source}"
            raise VitportError(f"{path} {where} and would be replaced while it is read: choose another destination.")
    if found.is_dir():
        _check_folder(path, found, formats)
    elif not holds_weights(found):
        raise VitportError(f"{path} is not a file of weights, so it is not replaced: choose another destination.")
    _check_ending(path, formats)
    return found


def _check_ending(path: Path, formats: list[Format]) -> None:
    """Refuse a name that says another kind of file than is written: a ``.pth`` that torch.load cannot open."""
    written = {it.writer for it in formats if it.writer is not None}
    endings = [ending for writer in ENDINGS if writer in written for ending in ENDINGS[writer]]
    kinds = {*ENDINGS, *(it for it in written if isinstance(it, FolderWriter))}
    ending, others = path.suffix.lower(), {*_NO_WEIGHTS, *(it for several in ENDINGS.values() for it in several)}
    if not written <= kinds or ending in endings or ending not in others:
        return
    name = formats[0].group or formats[0].name
    what = f"a file that ends in {' or '.join(endings[:2])}" if endings else "a folder"
    raise VitportError(f"{path} ends in {ending}, but {name} writes {what}: choose another name, or another format.")


def _followed(path: Path) -> Path:
    """The absolute path without links, of a regular file, a folder, or nothing yet in a folder that exists."""
    try:
        found = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError):
            found.lstat()  # raises for a name that is too long
        is_above = Path.cwd().is_relative_to(found)
        is_special = path.exists() and not (path.is_file() or path.is_dir())
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise VitportError(f"{_short(path)} cannot be written ({reason}): choose another destination.") from error
    if found.is_symlink():  # realpath gives up on links in a circle
        raise VitportError(f"{path} cannot be written: its links form a circle; choose another destination.")
    if is_special:
        raise VitportError(f"{path} cannot be written: it is a device, pipe or socket; give the name of a file.")
    if is_above:
        raise VitportError(f"{path} cannot be written: it is or holds the current folder; give the name of a new one.")
    if not found.parent.is_dir():
        raise VitportError(f"{path} cannot be written: the folder {path.parent} does not exist; make it.")
    if not os.access(found.parent, os.W_OK | os.X_OK):
        raise VitportError(
            f"{path} cannot be written: the folder {path.parent} is read-only; choose a folder with write access."
        )
    return found


def _check_folder(path: Path, found: Path, formats: list[Format]) -> None:
    """Refuse a folder unless one of the formats could have written every entry."""
    entries = _entries(found)
    if CARD in entries and not is_ours(found):
        raise VitportError(
            f"{path} holds {CARD!r}, which somebody else wrote and vitport does not write over: move it, or choose "
            "another destination."
        )
    strangers: list[str] = []
    for writer in dict.fromkeys(it.writer for it in formats if isinstance(it.writer, FolderWriter)):
        strangers = [entry for entry in entries if not writer.writes(entry)]
        if not strangers:
            return
    if not strangers:
        name = formats[0].group or formats[0].name
        raise VitportError(f"{path} is a folder, and {name} writes a file: choose another destination.")
    more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
    raise VitportError(
        f"{path} holds {strangers[0]!r}{more}, which {formats[0].group or formats[0].name} does not write, so it is "
        "not replaced: choose another destination."
    )


def _entries(folder: Path) -> list[str]:
    """Relative paths of all that lies below, sorted; folders only if empty, and with ``/``, as links and devices."""
    entries: list[str] = []

    def unreadable(error: OSError) -> None:
        raise VitportError(f"{error.filename} cannot be read ({error.strerror}), so it is not replaced.") from error

    for place, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(place)
        inside = [here / name for name in files if (here / name).is_file() and not (here / name).is_symlink()]
        others = [here / name for name in (*folders, *files) if (here / name) not in inside]
        entries += [file.relative_to(folder).as_posix() for file in inside]
        entries += [
            f"{other.relative_to(folder).as_posix()}/"
            for other in others
            if other.is_symlink() or not other.is_dir() or not any(other.iterdir())
        ]
    return sorted(entries)


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 100 else f"{text[:100]}…"
