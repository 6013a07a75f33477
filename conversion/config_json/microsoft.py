"""The options of microsoft/Swin-Transformer, as its YAML files and the ``config.json`` of its runs hold them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conversion.containers.file_checks import first_line
from vit_spec import VitportError

_VERSIONS = {"swin": ("SWIN", 1), "swinv2": ("SWINV2", 2)}
_FIELDS = {
    "PATCH_SIZE": "patch_size", "IN_CHANS": "in_channels", "EMBED_DIM": "embed_dim", "DEPTHS": "depths",
    "NUM_HEADS": "num_heads", "MLP_RATIO": "mlp_ratio", "QKV_BIAS": "qkv_bias", "APE": "absolute_pos_embed",
    "PATCH_NORM": "patch_norm",
}  # fmt: skip
_MOST_BYTES = 1 << 20


def is_yaml(path: Path, text: str) -> bool:
    """Whether it is such a file: by its name, or by what a run wrote into its config.json."""
    return path.suffix in (".yaml", ".yml") or any(line.startswith("MODEL:") for line in text.splitlines()[:200])


def facts(path: Path, text: str) -> dict[str, Any]:
    """Config fields that the options state, and windows and image size by the code's own defaults.

    Raises:
        VitportError: if they are no Swin Transformer's, or say where to read more.
    """
    options = _read(path, text)
    model, data = (options.get(part) or {} for part in ("MODEL", "DATA"))
    if not isinstance(model, dict) or not isinstance(data, dict) or not model:
        raise VitportError(f"{path} has no section MODEL: give an options file of microsoft/Swin-Transformer.")
    bases = [base for base in options.get("BASE") or [] if base]
    if bases:
        raise VitportError(f"{path} takes options from {', '.join(map(str, bases))} too: write them into one file.")
    kind = model.get("TYPE", "swin")
    if kind not in _VERSIONS:
        raise VitportError(f"{path} is of a model of type {str(kind)[:40]!r}, which vitport does not have.")
    section, version = _VERSIONS[kind]
    own = model.get(section) or {}
    if not isinstance(own, dict):
        raise VitportError(f"{path} has a section MODEL.{section} that holds no options.")
    if own.get("QK_SCALE") is not None:
        raise VitportError(f"{path} scales attention by QK_SCALE={own['QK_SCALE']}, which a SwinConfig does not hold.")
    found = {"version": version, "window_sizes": own.get("WINDOW_SIZE", 7), "image_size": data.get("IMG_SIZE", 224)}
    if version == 2:
        found["pretrained_window_sizes"] = own.get("PRETRAINED_WINDOW_SIZES", 0)
    found |= {field: own[option] for option, field in _FIELDS.items() if option in own}
    rates = {"DROP_RATE": "drop_rate", "DROP_PATH_RATE": "drop_path_rate"}
    return found | {field: float(model[option]) for option, field in rates.items() if option in model}


def _read(path: Path, text: str) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise VitportError(f"Reading {path} needs PyYAML: pip install pyyaml.") from error
    if len(text) > _MOST_BYTES:
        raise VitportError(f"{path} has {len(text)} characters, too many for options: check its origin.")
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise VitportError(f"{path} cannot be read as YAML ({first_line(error)}): fetch it again.") from error
    if not isinstance(found, dict):
        raise VitportError(f"{path} holds no options by name: give an options file of microsoft/Swin-Transformer.")
    return found
