"""A folder as ``save_pretrained`` writes it: config.json, weights, perhaps preprocessor_config.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversion.containers import safetensors_file, torch_file
from conversion.source import Source
from conversion.table import TensorTable
from vit_spec import VitportError

_WEIGHTS = {"model.safetensors": safetensors_file, "pytorch_model.bin": torch_file}


def recognises(path: Path) -> bool:
    """A folder with a config.json."""
    return (path / "config.json").is_file()


def read(path: Path, weights_key: str | None = None) -> Source:
    """Open the folder's weights, one file or the shards that an index lists."""
    config = read_json(path / "config.json")
    preprocessor = path / "preprocessor_config.json"
    parts = [_open(part, weights_key) for part in _weight_files(path)]
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


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object in a file, or the sentence that says it is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise VitportError(f"{path} cannot be read as JSON ({error}): fetch it again.") from error
    if not isinstance(value, dict):
        raise VitportError(f"{path} holds {type(value).__name__} instead of a JSON object: fetch it again.")
    return value


def _open(part: Path, weights_key: str | None) -> Source:
    container = safetensors_file if part.suffix == ".safetensors" else torch_file
    return container.read(part, weights_key)


def _weight_files(path: Path) -> list[Path]:
    for name in _WEIGHTS:
        if (path / name).is_file():
            return [path / name]
        if (path / f"{name}.index.json").is_file():
            shards = sorted(set(read_json(path / f"{name}.index.json").get("weight_map", {}).values()))
            outside = [shard for shard in shards if Path(shard).name != shard]
            absent = [shard for shard in shards if shard not in outside and not (path / shard).is_file()]
            if outside or absent or not shards:
                fault = (
                    f"points outside the folder: {outside[0]}"
                    if outside
                    else f"names shards that are missing: {', '.join(absent)}"
                )
                raise VitportError(f"{path / name}.index.json {fault}; fetch the folder again.")
            return [path / shard for shard in shards]
    raise VitportError(
        f"{path} has a config.json but no {' or '.join(_WEIGHTS)}, whole or in shards: fetch the weights too."
    )
