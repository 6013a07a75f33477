"""Addresses that are given where a path on this machine is expected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_spec.errors import VitportError

_STORES = ("gs", "s3", "s3a", "az", "abfs", "abfss", "wasb", "wasbs", "hdfs", "http", "https", "ftp", "sftp")
# pathlib writes one slash; before one slash stand also the words that say how `compare` runs a file, as in jax:/folder.
_SCHEME = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]+)://[^/]|(?P<store>{'|'.join(_STORES)}):/[^/]", re.ASCII | re.I)
_COPIES = {"gs": "gcloud storage cp -r", "s3": "aws s3 cp --recursive", "http": "curl -O", "https": "curl -O"}
_KNOWN = ("hf",)


def check_local(path: str) -> None:
    """Refuses an address of an object store or the web, which would else become a folder of that name.

    Args:
        path: as it was given, or as ``pathlib`` writes it, with one slash. ``hf://`` is read elsewhere.

    Raises:
        VitportError: for such an address.
    """
    found = _SCHEME.match(path)  # one letter is a drive
    if found is None:
        return
    scheme = (found["scheme"] or found["store"]).lower()
    if scheme in _KNOWN:
        return
    copy = _COPIES.get(scheme)
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
