"""``conversion/identify/toy`` and a format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conversion.containers import safetensors_file
from conversion.format import Format
from conversion.tensors.rules import Aliased
from conversion.tensors.table import Shapes
from tests.toy_family.spec import ToyConfig

NEVER_GUESSED = ("heads",)
CHANGED_BY_FINE_TUNING = frozenset({"head"})
EVERY_PARAMETER = (ToyConfig(),)
HEAD_WIDTHS = (2,)
REFUSED: dict[str, str] = {}


def sizes_from_shapes(shapes: Shapes) -> dict[str, Any]:
    width, channels, patch, _ = shapes["patch_embed.proj.weight"]
    blocks = {tuple(name.split(".")[1:4:2]) for name in shapes if name.startswith("levels.") and ".blocks." in name}
    stages = [sum(stage == str(at) for stage, _ in blocks) for at in range(1 + max(int(stage) for stage, _ in blocks))]
    classes = shapes["head.weight"][0] if "head.weight" in shapes else 0
    return {"width": width, "in_channels": channels, "patch_size": patch, "depths": tuple(stages),
            "num_classes": classes}  # fmt: skip


def facts_from_shapes(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    return sizes_from_shapes(shapes)


def usual(values: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def check_named(name: str, named: Any, config: Any, any_head: bool) -> None:
    pass


FORMAT = Format(
    name="toy",
    summary="the names of the toy family",
    family="toy",
    group="timm",
    before=("timm",),
    names=Aliased(()),
    signature=("levels.1.merge.weight",),
    writer=safetensors_file.write,
)
