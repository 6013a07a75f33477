"""What the names and shapes of a Swin Transformer's tensors say about its config."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from conversion.tensors.table import Shapes
from vit_spec import SwinConfig, VitportError
from vit_spec.swin.presence import shown_options
from vit_spec.swin.windows import windowings

NEVER_GUESSED = (
    "window_sizes", "pretrained_window_sizes", "image_size", "window_rule", "pad_order", "activation", "norm_eps",
)  # fmt: skip
"""Config fields that change outputs and that not every file shows: they must be stated somewhere."""
CHANGED_BY_FINE_TUNING = frozenset({"head", "absolute_pos_embed"})
"""First components of names whose shapes fine-tuning changes."""
EVERY_PARAMETER = (SwinConfig(absolute_pos_embed=True), SwinConfig(num_classes=0, stage_norms=(0, 1, 2)))
"""Between them, they have every parameter outside the blocks."""
HEAD_WIDTHS = (1, 2, 4, 8, 16, 32)
"""Each further stage is twice as wide as the one before."""
REFUSED: dict[str, str] = {}
"""No models are almost Swin Transformers under the names of its formats."""
_TABLE = "attn.relative_position_bias_table"
_SCALE = "attn.logit_scale"


def sizes_from_shapes(shapes: Shapes) -> dict[str, Any]:
    """The config fields that canonical names and shapes decide whatever else is known.

    Raises:
        VitportError: if the tensors are not a Swin Transformer's.
    """
    kernel = _needed(shapes, "patch_embed.proj.weight", 4)
    if kernel[2] != kernel[3]:
        raise VitportError(
            f"patch_embed.proj.weight has patches of {kernel[2]}x{kernel[3]}, but only square patches are supported."
        )
    depths = _depths(shapes)
    first = [f"layers.{stage}.blocks.0" for stage in range(len(depths))]
    version = 2 if f"{first[0]}.{_SCALE}" in shapes else 1
    heads = [_needed(shapes, f"{at}.{_SCALE}", 3)[0] if version == 2 else _needed(shapes, f"{at}.{_TABLE}", 2)[1]
             for at in first]  # fmt: skip
    return {
        "version": version,
        "embed_dim": kernel[0],
        "in_channels": kernel[1],
        "patch_size": kernel[2],
        "depths": depths,
        "num_heads": tuple(heads),
        "num_classes": shapes["head.fc.weight"][0] if "head.fc.weight" in shapes else 0,
        "stage_norms": tuple(
            stage for stage in range(len(depths) - 1) if f"stage_norms.{stage}.weight" in shapes
        ),
        **shown_options(shapes),
    }  # fmt: skip


def facts_from_shapes(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """The config fields that canonical names and shapes decide.

    Args:
        shapes: canonical name → shape.
        told: config fields known from elsewhere. They decide where shapes leave several answers: for windows that are
            not square, and for the ratio of the MLP's widths.

    Raises:
        VitportError: if the tensors are not a Swin Transformer's.
    """
    facts = sizes_from_shapes(shapes)
    depths, hidden = facts["depths"], _needed(shapes, "layers.0.blocks.0.mlp.fc1.weight", 2)[0]
    facts["mlp_ratio"] = _mlp_ratio(facts["embed_dim"], hidden, told)
    if "absolute_pos_embed" in shapes:
        facts |= _image_size(shapes["absolute_pos_embed"], facts["patch_size"], told)
    if facts["version"] == 1:
        rows = [_needed(shapes, f"layers.{stage}.blocks.0.{_TABLE}", 2)[0] for stage in range(len(depths))]
        facts |= {"pretrained_window_sizes": ((0, 0),) * len(depths)} | _windows(rows, facts, told)
    return facts


def usual(values: Mapping[str, Any]) -> dict[str, Any]:
    """Config fields that need not be stated: the image size where windows never shrink, because it has no effect there.

    Args:
        values: the fields that are known.
    """
    if values.get("window_rule") not in ("pad", "never"):
        return {}
    side = 256 if values.get("version") == 2 else 224  # of the classifiers that such models begin with
    return {"image_size": (side, side)}


def check_named(name: str, named: SwinConfig, config: SwinConfig, any_head: bool) -> None:
    """Refuse a name whose windows are not the file's, at the image size that is run.

    Raises:
        VitportError: with the windows of both.
    """
    own, found = ([it.window for it in windowings(each)] for each in (named, config))
    if own != found:
        raise VitportError(
            f"{name} has windows of {_by(own)}, but those of the file are {_by(found)} at {config.image_size[0]}x"
            f"{config.image_size[1]} pixels: name the model that they are, or give a SwinConfig."
        )


def _depths(shapes: Shapes) -> tuple[int, ...]:
    """Blocks of each stage."""
    found = [match for name in shapes if (match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name))]
    last: dict[int, int] = {}
    for match in found:
        stage, block = int(match[1]), int(match[2])
        last[stage] = max(last.get(stage, 0), block)
    if not last or sorted(last) != list(range(len(last))):
        raise VitportError(
            f"The tensors are not a Swin Transformer's: it has stages {sorted(last)} among {len(shapes)} names."
        )
    return tuple(last[stage] + 1 for stage in range(len(last)))


def _needed(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    if name not in shapes:
        raise VitportError(f"The tensors are not a Swin Transformer's: {name} is missing among {len(shapes)} names.")
    if len(shapes[name]) != axes:
        raise VitportError(f"{name} has shape {shapes[name]}, but must have {axes} axes.")
    return shapes[name]


def _image_size(table: tuple[int, ...], patch: int, told: Mapping[str, Any]) -> dict[str, Any]:
    """The told size if the table of absolute positions fits it, else a square one."""
    size = told.get("image_size", (0, 0))
    count = table[1] if len(table) == 3 else 0
    if (size[0] // patch) * (size[1] // patch) == count:
        return {"image_size": size}
    side = math.isqrt(count)
    if side * side != count:
        raise VitportError(
            f"absolute_pos_embed has {count} rows, which fit neither a square map nor a known image size: give a "
            "SwinConfig with the image_size (height, width) that the weights were trained at."
        )
    return {"image_size": (side * patch, side * patch)}


def _mlp_ratio(width: int, hidden: int, told: Mapping[str, Any]) -> float:
    ratio = told.get("mlp_ratio", 4.0)
    if int(width * ratio) == hidden:
        return ratio
    return hidden / width if int(width * (hidden / width)) == hidden else math.nextafter(hidden / width, math.inf)


def _windows(rows: list[int], facts: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Version 1's windows, from the rows of its tables: the told ones if they fit, else squares."""
    if "window_sizes" in told and _offsets(facts, told) == rows:
        return {"window_sizes": told["window_sizes"]}
    sides = [(math.isqrt(count) + 1) // 2 for count in rows]
    if any((2 * side - 1) ** 2 != count for side, count in zip(sides, rows, strict=True)):
        raise VitportError(
            f"The tables of relative positions have {', '.join(map(str, rows))} rows, which are not those of square "
            "windows: give a SwinConfig with the window_sizes (height, width) of each stage."
        )
    return {"window_sizes": tuple((side, side) for side in sides)}


def _offsets(facts: Mapping[str, Any], told: Mapping[str, Any]) -> list[int] | None:
    """Rows of the tables that a model of the told windows has; ``None`` if the told fields fit no model."""
    sizes = ("window_sizes", "image_size", "window_rule")
    try:
        config = SwinConfig.from_dict(dict(facts) | {name: told[name] for name in sizes if name in told} | {
            "pretrained_window_sizes": 0
        })  # fmt: skip
    except VitportError:
        return None
    return [windowing.offsets for windowing in windowings(config)]


def _by(windows: list[tuple[int, int]]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in windows)
