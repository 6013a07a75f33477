"""Whether a folder's config.json names a class that is read here: asked before its tensors are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conversion.format import Format
from conversion.formats import FORMATS
from vit_spec import VitportError

LACKING = {
    "radio": "its answer is several class tokens side by side, its position table is resized and cut for every image, "
    "and it normalises pixels itself (timm's files of it are read: vit_base_patch16_radio_v3 and others)",
    "vjepa2": "V-JEPA 2 reads videos, and its positions turn channels along three axes by a table that is no rotation",
    "sam_vision_model": "SAM's encoder attends within windows, with biases from rows and columns apart",
    "sam2_vision_model": "SAM 2's encoder pools queries between stages and attends within windows",
    "sam3_vit_model": "SAM 3's encoder attends within windows in most blocks",
    "pixtral": "Pixtral reads images of any shape side by side in one sequence",
    "qwen2_5_vl_vision": "its patches span two frames, and it attends within windows",
    "gemma4_vision": "its blocks have four norms, and its linear layers are clamped",
    "hiera": "Hiera pools queries between stages",
    "dinov3_convnext": "it is a convolutional network",
}
"""transformers' ``model_type`` → what such a model has and no model here does."""
_FRAMEWORKS = ("Flax", "TF")
"""Beginnings of the names of transformers' classes in other frameworks."""
_TIMM_WRAPPER = "timm_wrapper"
"""A folder that names timm's architecture, which ``conversion.config_json.timm`` reads."""


def check_class(config_json: Mapping[str, Any]) -> None:
    """Compare ``model_type`` and ``architectures`` with the classes that all formats know.

    Classes that share their tensors' names may compute something else: windows, other inputs, other attention.

    Raises:
        VitportError: for a model type or class that no format lists.
    """
    known = known_classes()
    kind, named = config_json.get("model_type"), _architectures(config_json)
    if kind == _TIMM_WRAPPER and "architecture" in config_json:
        return
    told = f"config.json has model_type={kind!r}" + (f" ({', '.join(named)})" if named else "")
    if kind in LACKING:
        raise VitportError(
            f"{told}, which vitport cannot hold: {LACKING[kind]}. Choose a model of another kind, saved alone with "
            "save_pretrained."
        )
    if kind is not None and kind not in known:
        raise VitportError(f"{told}, which is not a model that vitport reads: {_remedy(config_json, known)}.")
    classes = known[kind] if kind is not None else tuple(cls for group in known.values() for cls in group)
    for name in named:
        if _plain(name) not in classes:
            raise VitportError(
                f"config.json has architectures=[{name!r}], which is not a class that vitport reads "
                f"({', '.join(classes)}): load its backbone as one of these and save it with save_pretrained."
            )


def _remedy(config_json: Mapping[str, Any], known: Mapping[str, tuple[str, ...]]) -> str:
    """The part of a larger model that is read, where config.json nests its config; else the types that are read."""
    for place, nested in config_json.items():
        kind = nested.get("model_type") if isinstance(nested, Mapping) else None
        if isinstance(kind, str) and kind in known:
            return f"its {place} is a {kind!r}, so save that part alone, as {known[kind][0]}, with save_pretrained"
        if isinstance(kind, str) and kind in LACKING:
            return f"its {place} is a {kind!r}, which vitport cannot hold either: {LACKING[kind]}"
    return f"it reads {', '.join(sorted(known))}, each saved alone with save_pretrained"


def _architectures(config_json: Mapping[str, Any]) -> tuple[str, ...]:
    named = config_json.get("architectures") or ()
    return (named,) if isinstance(named, str) else tuple(map(str, named))


def format_by_class(config_json: Mapping[str, Any]) -> str | None:
    """The format that only config.json shows, because another one has its names; see ``Format.by_class``."""
    kind = config_json.get("model_type")
    return next((name for name, format in FORMATS.items() if format.by_class and kind in format.classes), None)


def check_format(config_json: Mapping[str, Any], found: Format) -> None:
    """Compare ``model_type`` with the format that the tensors' names show.

    Raises:
        VitportError: if files of that model type have another format.
    """
    kind = config_json.get("model_type")
    if found.classes and kind is not None and kind not in found.classes:
        raise VitportError(
            f"config.json has model_type={kind!r}, but the tensors' names are those of {found.summary} (model_type "
            f"{' or '.join(found.classes)}): they belong to different models, so fetch the folder again."
        )


def known_classes() -> dict[str, tuple[str, ...]]:
    """``model_type`` → the classes of all formats."""
    known: dict[str, tuple[str, ...]] = {}
    for format in FORMATS.values():
        for kind, classes in format.classes.items():
            known[kind] = (*known.get(kind, ()), *classes)
    return known


def _plain(name: str) -> str:
    for framework in _FRAMEWORKS:
        name = name.removeprefix(framework)
    return name
