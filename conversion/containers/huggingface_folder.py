"""A folder as ``save_pretrained`` writes it: config.json, weights, and usually preprocessor_config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conversion.checkpoint import Checkpoint
from conversion.config_json import huggingface as huggingface_config
from conversion.containers import msgpack_file, safetensors_file, torch_file
from conversion.containers.file_checks import check_inside, read_json
from conversion.containers.model_card import CARD, write_card
from conversion.containers.wall import walled
from conversion.format import FolderWriter
from conversion.source import Source
from conversion.tensors.table import TensorTable
from vit_spec import VitportError

_WEIGHTS = {"model.safetensors": safetensors_file, "pytorch_model.bin": torch_file, "flax_model.msgpack": msgpack_file}
_WRITTEN = (
    re.escape(CARD),
    r"config\.json",
    r"preprocessor_config\.json",
    r"model(-\d{5,}-of-\d{5,})?\.safetensors",
    r"model\.safetensors\.index\.json",
)

MAX_SHARD_BYTES = 5 * 10**9
"""Bytes of tensors in one file; larger models are written in shards, as ``save_pretrained`` writes them."""


def recognises(path: Path) -> bool:
    """A folder with a config.json."""
    return (path / "config.json").is_file()


@walled("Hugging Face folder")
def read(path: Path, weights_key: str | None = None) -> Source:
    """Open the folder's weights, one file or the shards that an index lists."""
    preprocessor, weights = path / "preprocessor_config.json", _weight_files(path)
    for file in (path / "config.json", preprocessor, *weights):
        check_inside(path, file)
    config = read_json(path / "config.json")
    parts = [_open(part, weights_key) for part in weights]
    names = [name for part in parts for name in part.table]
    if twice := sorted({name for name in names if names.count(name) > 1} if len(names) > len(set(names)) else ()):
        raise VitportError(f"{path} holds {', '.join(twice)} in more than one shard: it is damaged.")
    table = TensorTable({name: tensor for part in parts for name, tensor in part.table.tensors.items()})
    return replace(
        parts[0],
        path=path,
        container=f"Hugging Face folder ({parts[0].container})",
        table=table,
        files=(path / "config.json", *(part.path for part in parts)),
        config_json=config,
        preprocessor_json=read_json(preprocessor) if preprocessor.is_file() else None,
        notes=tuple(note for part in parts for note in part.notes),
    )


def _nothing(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    del checkpoint
    return {}


def _usual_preprocessor(checkpoint: Checkpoint) -> dict[str, Any]:
    return huggingface_config.preprocessor_json(checkpoint.preprocessing)


def _as_it_is(name: str, checkpoint: Checkpoint) -> str:
    del checkpoint
    return name


def writer(
    config_json: Callable[[Checkpoint], dict[str, Any]],
    *,
    place: Callable[[str, Checkpoint], str] = _as_it_is,
    filler: Callable[[Checkpoint], Mapping[str, np.ndarray]] = _nothing,
    preprocessor_json: Callable[[Checkpoint], dict[str, Any]] = _usual_preprocessor,
) -> FolderWriter:
    """A writer of folders that ``from_pretrained`` loads with no key missing and none unexpected.

    config.json alone describes the model. There is no record of ours beside it, so editing config.json works.

    Args:
        config_json: the whole content of config.json.
        place: from a bare name to the name in the file, with or without prefix; by default without.
        filler: tensors, under bare names, that transformers' class has and no forward pass reads.
        preprocessor_json: the whole content of preprocessor_config.json.
    """

    def write(path: Path, table: TensorTable, checkpoint: Checkpoint, progress: Callable[[str], None]) -> None:
        names = {place(name, checkpoint) for name in table}
        whole = TensorTable(table.tensors | TensorTable.of(filler(checkpoint)).tensors)
        path.mkdir()
        _write_shards(
            path,
            whole.renamed(lambda name: place(name, checkpoint)),
            lambda name: progress(name) if name in names else None,
        )
        described = config_json(checkpoint)
        _write_json(path / "config.json", described)
        write_card(path, checkpoint, described)
        _write_json(path / "preprocessor_config.json", preprocessor_json(checkpoint))

    return FolderWriter(write, _WRITTEN)


def _write_shards(path: Path, table: TensorTable, progress: Callable[[str], None]) -> None:
    """One file, or several and an index if one would exceed ``MAX_SHARD_BYTES``."""
    shards = _shards_of(table)
    if len(shards) == 1:
        safetensors_file.write_tensors(path / "model.safetensors", table, {"format": "pt"}, progress)
        return
    places: dict[str, str] = {}
    for at, names in enumerate(shards, start=1):
        file = f"model-{at:05d}-of-{len(shards):05d}.safetensors"
        shard = TensorTable({name: table.tensors[name] for name in names})
        safetensors_file.write_tensors(path / file, shard, {"format": "pt"}, progress)
        places |= dict.fromkeys(names, file)
    sizes = {"total_size": sum(table.nbytes(name) for name in table)}
    _write_json(path / "model.safetensors.index.json", {"metadata": sizes, "weight_map": places})


def _shards_of(table: TensorTable) -> list[list[str]]:
    """The names in order, as many to a shard as fit; a tensor larger than a shard gets its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name in table:
        size = table.nbytes(name)
        if shards[-1] and filled + size > MAX_SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def body_prefix(prefix: str, *heads: str) -> Callable[[str, Checkpoint], str]:
    """The usual ``place``: in models with a head, ``prefix`` before every name except the heads'."""

    def place(name: str, checkpoint: Checkpoint) -> str:
        return name if not checkpoint.config.num_classes or name.startswith(heads) else prefix + name

    return place


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _open(part: Path, weights_key: str | None) -> Source:
    containers = {Path(name).suffix: container for name, container in _WEIGHTS.items()}
    return containers.get(part.suffix, torch_file).read(part, weights_key)


def _weight_files(path: Path) -> list[Path]:
    for name in _WEIGHTS:
        if (path / name).is_file():
            return [path / name]
        if (path / f"{name}.index.json").is_file():
            return [path / shard for shard in _shards(path / f"{name}.index.json")]
    raise VitportError(
        f"{path} has a config.json but no {' or '.join(_WEIGHTS)}, whole or in shards: fetch the weights too."
    )


def _shards(path: Path) -> list[str]:
    """The shards that an index names, each a file in the index's own folder."""
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise VitportError(f"{path} has no weight_map of tensors to shards: fetch the folder again.")
    shards = sorted(set(places.values()))
    outside = [shard for shard in shards if Path(shard).name != shard or "\0" in shard]
    absent = [shard for shard in shards if shard not in outside and not (path.parent / shard).is_file()]
    if outside or absent:
        fault = (
            f"points outside the folder: {outside[0]!r}"
            if outside
            else f"names shards that are missing: {', '.join(absent)}"
        )
        raise VitportError(f"{path} {fault}; fetch the folder again.")
    return shards
