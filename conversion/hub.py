"""``hf://owner/name[@revision]``: a model on the Hugging Face Hub, or what its cache on this machine has of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vit_spec import VitportError

PREFIX = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@]+))?")
_SETTINGS = "*.json"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "flax_model.msgpack", "*.npz")
"""In the order of preference; only the first that a model has is fetched."""


def local(path: str | Path) -> Path:
    """The path on this machine: of a model on the Hub the folder that it was fetched to, any other path as it is.

    Without a network the Hub's own cache is asked, as ``huggingface_hub`` does it everywhere.

    Raises:
        VitportError: for an address that is none, or a model that can neither be fetched nor is in the cache.
    """
    if not str(path).startswith(PREFIX):
        return Path(path)
    address = _ADDRESS.fullmatch(str(path))
    if address is None:
        raise VitportError(f"{path} is no address on the Hub: write hf://owner/name or hf://owner/name@revision.")
    try:
        import huggingface_hub
    except ImportError as error:
        raise VitportError(f"Fetching {path} needs huggingface_hub: pip install 'vitport[hub]'.") from error
    for weights in _WEIGHTS:
        folder = _snapshot(huggingface_hub, str(path), address["repo"], address["revision"], [_SETTINGS, weights])
        if any(folder.glob(weights)):
            return _single(folder, weights)
    raise VitportError(f"{path} has none of {', '.join(_WEIGHTS)}: there are no weights in it to read.")


def _single(folder: Path, weights: str) -> Path:
    """The folder, or, where it has no config.json to tell what it is, its one file of weights."""
    files = sorted(folder.glob(weights))
    return files[0] if len(files) == 1 and not (folder / "config.json").is_file() else folder


def _snapshot(hub, path: str, repo: str, revision: str | None, patterns: Sequence[str]) -> Path:  # noqa: ANN001
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hub.snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except RepositoryNotFoundError as error:
        raise VitportError(
            f"{path} is not on the Hub, or not open to you: check its name, or log in with hf."
        ) from error
    except LocalEntryNotFoundError as error:
        raise VitportError(
            f"{path} cannot be fetched, for the Hub cannot be reached, and the cache of huggingface_hub does not have "
            "it: fetch it where there is a network, with hf download, and copy the cache."
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise VitportError(f"{path} cannot be fetched ({' '.join(str(error).split())}): try again.") from error
