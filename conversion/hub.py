"""``hf://owner/name[@revision]``: a model on the Hugging Face Hub, or in the Hub's cache on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from vit_spec import VitportError
from vit_spec.address import check_local, in_store

PREFIX = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@]+))?")
_SETTINGS = "*.json"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "flax_model.msgpack", "*.npz")
"""In order of preference; only the first kind that a model has is fetched."""
_TABLES, _CONVERTED = "*.parquet", "refs/convert/parquet"
"""Files of a data set, and the branch where the Hub puts those that it converted."""


def local(path: str | Path) -> Path:
    """The path on this machine: what was fetched from the Hub or a bucket; any other path unchanged.

    Without a network the Hub's cache is used, as ``huggingface_hub`` always does.

    Raises:
        VitportError: if the address is malformed, or the model can neither be fetched nor found in the cache.
    """
    if not str(path).startswith(PREFIX):
        if in_store(path):
            from conversion.store import fetched

            return fetched(str(path))
        check_local(str(path))
        return Path(path)
    hub, repo, revision = _address(str(path))
    for weights in _WEIGHTS:
        folder = _snapshot(hub, str(path), repo, revision, [_SETTINGS, weights], "model")
        if any(folder.glob(weights)):
            return _single(folder, weights)
    raise VitportError(f"{path} has no weights to read: expected one of {', '.join(_WEIGHTS)}.")


def dataset(path: str) -> Path:
    """The folder on this machine with the Parquet files of ``hf://owner/name``, a data set.

    If the owner uploaded other files, the Hub has converted them to Parquet.

    Raises:
        VitportError: as :func:`local` does.
    """
    hub, repo, revision = _address(path)
    for tried in (revision,) if revision else (None, _CONVERTED):
        folder = _snapshot(hub, path, repo, tried, [_TABLES], "dataset")
        if any(folder.rglob(_TABLES)):
            return folder
    raise VitportError(f"{path} has no Parquet files: download its files, and give their path.")


def _address(path: str) -> tuple[ModuleType, str, str | None]:
    """The library, ``owner/name``, and the revision if given."""
    address = _ADDRESS.fullmatch(path)
    if address is None:
        raise VitportError(f"{path} is not an address on the Hub: write hf://owner/name or hf://owner/name@revision.")
    try:
        import huggingface_hub
    except ImportError as error:
        raise VitportError(f"Fetching {path} needs huggingface_hub: pip install 'vitport[hub]'.") from error
    return huggingface_hub, address["repo"], address["revision"]


def _single(folder: Path, weights: str) -> Path:
    """The folder; without a config.json in it, its one file of weights."""
    files = sorted(folder.glob(weights))
    return files[0] if len(files) == 1 and not (folder / "config.json").is_file() else folder


def _snapshot(hub: ModuleType, path: str, repo: str, revision: str | None, patterns: Sequence[str], kind: str) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hub.snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=list(patterns)))
    except RepositoryNotFoundError as error:
        raise VitportError(
            f"{path} is not on the Hub, or you have no access: check its name, or log in with hf."
        ) from error
    except LocalEntryNotFoundError as error:
        raise VitportError(
            f"{path} cannot be fetched: the Hub is unreachable, and huggingface_hub's cache does not have it. "
            "Download it where there is a network (hf download), and copy the cache."
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise VitportError(f"{path} cannot be fetched ({' '.join(str(error).split())}): try again.") from error
