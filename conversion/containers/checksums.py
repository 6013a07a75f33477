"""SHA-256 of the files in a folder, stored in it: orbax's own checks do not detect a bit flipped on the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from conversion.containers.file_checks import check_inside, read_json
from vit_spec import VitportError

NAME = "sha256.json"


def write_checksums(folder: Path, parts: Iterable[str]) -> None:
    """Store the hashes of all files below the named parts of a folder; the list appears whole or not at all."""
    files = sorted(file for part in parts for file in (folder / part).rglob("*") if file.is_file())
    sums = {file.relative_to(folder).as_posix(): sha256(file) for file in files}
    aside = folder / f"{NAME}.part"
    aside.write_text(json.dumps(sums, indent=2))
    aside.replace(folder / NAME)


def check_checksums(folder: Path) -> None:
    """Compare the files with their stored hashes, if there are any.

    Raises:
        VitportError: for the first file that is missing or has changed.
    """
    path = folder / NAME
    if not path.is_file():
        return  # the writer was killed between checkpoint and list
    for name, expected in read_json(path).items():
        file = folder / name
        check_inside(folder, file)
        if not file.is_file() or sha256(file) != expected:
            raise VitportError(f"{file} is damaged: its SHA-256 is not the one stored with it. Use another checkpoint.")


def sha256(file: Path) -> str:
    """Of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
