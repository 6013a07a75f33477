"""peft's adapters: files whose tensors change those of another model, their base."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversion.containers import open_source
from conversion.containers.adapter_folder import CONFIG
from conversion.containers.file_checks import json_object
from conversion.containers.huggingface_folder import read as read_huggingface
from conversion.containers.huggingface_folder import recognises as is_huggingface
from conversion.hub import local
from conversion.identify.recognise import recognise
from conversion.source import Source
from conversion.tensors.lora import check_config, merge, parts
from conversion.tensors.rules import Rules
from conversion.tensors.table import TensorTable
from vit_spec import VitportError

_LORA = re.compile(r"(^|\.)lora_[AB](\.|$)")
_LABELS = ("id2label", "label2id", "label_names", "labels")


def with_adapter_merged(source: Source, base: str | Path | None) -> Source:
    """The base's source with an adapter merged into it; a source without an adapter as it is.

    Args:
        base: the base's weights; ``None`` takes those beside the adapter, else the path in adapter_config.json.

    Raises:
        VitportError: for an adapter that cannot be merged, a base that cannot be found, or a base without an adapter.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    adapted = next((name for name in source.table if _LORA.search(name)), None)
    described = (folder / CONFIG).is_file()
    if adapted is None and not (described and source.path == folder):
        if base is not None:
            raise VitportError(f"{source.path} is not an adapter, so it needs no base: leave out --base.")
        return source
    if not described:
        raise VitportError(
            f"The file holds an unmerged LoRA adapter ({adapted}), and lora_alpha, which scales it, is in no file: put "
            f"its {CONFIG} beside it, or merge it with peft's merge_and_unload() and save the model."
        )
    config = json_object(folder / CONFIG, (folder / CONFIG).read_bytes())
    whole = any(".base_layer.weight" in name for name in source.table)
    check_config(config, whole=whole)
    adapter = parts(source.table)
    ranks = sorted({factors["A"].shape[0] for factors in adapter.factors.values() if "A" in factors})
    what = f"merged a LoRA adapter of rank {', '.join(map(str, ranks))} and alpha {config.get('lora_alpha')}"
    if whole:
        table, _ = merge(adapter, config, TensorTable({}), lambda name: name if name in adapter.replaced else None)
        return replace(source, table=table, notes=(*source.notes, what))
    under = _base(source.path, base, config)
    table, added = merge(adapter, config, under.table, _finder(under.table))
    body = _of_body(under.table)
    other_head = bool(added) or any(name.endswith("weight") and not name.startswith(body) for name in adapter.replaced)
    labels = ("set aside the names of classes, which are those of the base's head",) if other_head else ()
    return replace(
        under,
        path=source.path,
        container=f"{source.container} with a LoRA adapter, on {under.container}",
        table=table,
        files=(folder / CONFIG, *source.files, *under.files),
        config_json=_without_labels(under.config_json) if other_head else under.config_json,
        own=_without_labels(under.own) if other_head else under.own,
        notes=(*under.notes, f"{what} into {under.path}", *labels),
    )


def _base(path: Path, given: str | Path | None, config: Mapping[str, Any]) -> Source:
    if given is not None:
        return open_source(local(given))
    if path.is_dir() and is_huggingface(path):
        return read_huggingface(path)
    named = str(config.get("base_model_name_or_path") or "")
    if named and Path(named).exists():
        return open_source(Path(named))
    where = f"{named!r}, which does not exist here" if named else "nothing"
    example = f"hf://{named}" if re.fullmatch(r"[\w.-]+/[\w.-]+", named) else "PATH"
    raise VitportError(
        f"{path} is an adapter, and its adapter_config.json names as base {where}: give the base's weights with "
        f"--base, such as --base {example}."
    )


def _finder(base: TensorTable) -> Callable[[str], str | None]:
    """From a name of the adapter's model to the base's name: transformers has other names in memory than in files."""
    names = recognise(base).format.names
    by_ending: dict[str, str] = {}
    for name in base:
        pieces = name.split(".")
        for at in range(len(pieces)):
            by_ending.setdefault(".".join(pieces[at:]), name)

    def find(name: str) -> str | None:
        if name in base:
            return name
        pieces = name.split(".")
        for at in range(len(pieces)):
            ending = ".".join(pieces[at:])
            synonyms = names.synonyms(ending) if isinstance(names, Rules) else []
            for other in (ending, *synonyms):
                if other.count(".") > 1 and other in by_ending:
                    return by_ending[other]
        return None

    return find


def _of_body(base: TensorTable) -> str:
    """What the names of the base's body begin with."""
    first = next(name for name in base if ".0." in name)
    return first.partition(".")[0]


def _without_labels(described: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if described is None else {key: value for key, value in described.items() if key not in _LABELS}
