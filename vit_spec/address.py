"""Addresses that are given where a path on this machine is expected, and those of object stores."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vit_spec.errors import VitportError

_ELSEWHERE = ("s3a", "az", "abfs", "abfss", "wasb", "wasbs", "hdfs", "http", "https", "ftp", "sftp")
_READ = ("gs", "s3")
"""Stores that vitport reads and writes, where an option says so."""
# pathlib writes one slash; before one slash stand also the words that say how `compare` runs a file, as in jax:/folder.
_SCHEME = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]+)://[^/]|(?P<store>{'|'.join((*_READ, *_ELSEWHERE))}):/[^/]", re.ASCII | re.I
)
_COPIES = {"gs": "gcloud storage cp -r", "s3": "aws s3 cp --recursive", "http": "curl -O", "https": "curl -O"}
_KNOWN = ("hf",)


def in_store(path: object) -> bool:
    """Whether it is an address of objects that vitport reads and writes: ``gs://BUCKET/NAME`` or ``s3://BUCKET/NAME``."""
    return str(path).startswith(tuple(f"{scheme}://" for scheme in _READ))


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
    where = "of this machine here" if scheme in _READ else "of this machine, gs://, s3:// and hf:// only"
    raise VitportError(
        f"{path} is not on this machine, and vitport reads and writes paths {where}: copy it{means} and give the path "
        "of the copy, or of a folder that is mounted here."
    )


def check_all_local(values: Any, stores: Collection[str] = (), name: str = "") -> None:
    """The same for every text of nested mappings and lists.

    Args:
        stores: names whose values may be addresses of objects, such as ``data.path``.
        name: of the values.
    """
    if isinstance(values, str):
        if not (name in stores and in_store(values)):
            check_local(values)
    elif isinstance(values, Mapping):
        for key, value in values.items():
            check_all_local(value, stores, f"{name}.{key}" if name else str(key))
    elif isinstance(values, Sequence):
        for value in values:
            check_all_local(value, stores, name)
