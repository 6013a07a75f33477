"""Addresses that are given where a path on this machine is expected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_spec.errors import VitportError

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):/{1,2}[^/]", re.ASCII)
_COPIES = {"gs": "gcloud storage cp -r", "s3": "aws s3 cp --recursive", "http": "curl -O", "https": "curl -O"}
_KNOWN = ("hf",)


def check_local(path: str) -> None:
    """Refuses an address of an object store or the web, which would else become a folder of that name.

    Args:
        path: as it was given, or as ``pathlib`` writes it, with one slash. ``hf://`` is read elsewhere.

    Raises:
        VitportError: for such an address.
    """
    found = _SCHEME.match(path)
    if found is None or len(found["scheme"]) == 1 or found["scheme"].lower() in _KNOWN:  # one letter is a drive
        return
    copy = _COPIES.get(found["scheme"].lower())
    means = f", as with `{copy}`," if copy else ""
    raise VitportError(
        f"{path} is not on this machine, and vitport reads and writes paths of this machine and hf:// only: copy it"
        f"{means} and give the path of the copy, or of a folder that is mounted here."
    )


def check_all_local(values: Any) -> None:
    """The same for every text of nested mappings and lists."""
    if isinstance(values, str):
        check_local(values)
    elif isinstance(values, Mapping):
        check_all_local(list(values.values()))
    elif isinstance(values, Sequence):
        for value in values:
            check_all_local(value)
