"""Files of Swin Transformers as others write them, through `vitport inspect` and `vitport convert --verify`: to timm's
format, and back to their own.

Oracles: the tensors of the file that went in, bit for bit; transformers' own classes, which made the folders and load
them again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import conversion
from tests.conversion.swin.models import BACKBONE, BASE, checkpoint
from tests.conversion.swin.test_formats import strange
from tests.cross.test_swin_parity import slow_but
from tests.cross.transformers_folders import randomize
from vit_spec import SwinConfig

V2 = BASE.replace(version=2)
NECK = {"neck.lateral_convs.0.conv.weight": torch.ones(4, 8, 1, 1), "bbox_head.fc_cls.weight": torch.ones(3, 4)}
"""What else a detector's file holds."""


@dataclass(frozen=True)
class Case:
    """A file of weights, written in a format of ours and then made a stranger's."""

    config: SwinConfig
    format: str
    group: str
    """The name that `--to` takes."""
    prefix: str = ""
    """Of the names in the stranger's file."""
    wrapper: str | None = None
    more: tuple[tuple[str, torch.Tensor], ...] = ()
    facts: tuple[str, ...] = ()
    """Fields of the config that the file does not say."""


HIDDEN = (("encoder.mask_token", torch.zeros(1, 1, 8)), ("decoder.0.weight", torch.zeros(48, 16, 1, 1)))
SIZE = ("image_size",)
CASES: dict[str, Case] = {
    "microsoft": Case(BASE, "microsoft-swin", "microsoft-swin", wrapper="model"),
    "microsoft-2": Case(V2, "microsoft-swin", "microsoft-swin", wrapper="model"),
    "simmim": Case(BASE.replace(num_classes=0), "microsoft-swin", "microsoft-swin", "encoder.", "model", HIDDEN),
    "simmim-2": Case(V2.replace(num_classes=0), "microsoft-swin", "microsoft-swin", "encoder.", "model", HIDDEN),
    "moby": Case(
        BASE.replace(num_classes=0), "microsoft-swin", "microsoft-swin", "encoder.", "model",
        (("encoder_k.norm.weight", torch.full((16,), 9.0)), ("queue1", torch.zeros(4, 8))),
    ),
    "microsoft-detection": Case(
        BACKBONE, "microsoft-swin-detection", "microsoft-swin-detection", "backbone.", "state_dict",
        tuple(NECK.items()), SIZE,
    ),
    "mmdetection": Case(BACKBONE, "mmpretrain-swin", "mmpretrain", "", "state_dict", tuple(NECK.items()), SIZE),
    "mmpretrain": Case(BASE, "mmpretrain-swin", "mmpretrain", "", "state_dict", (), SIZE),
    "mmpretrain-2": Case(V2, "mmpretrain-swinv2", "mmpretrain", "", "state_dict", (), SIZE),
    "torchvision": Case(BASE.replace(window_rule="pad"), "torchvision-swin", "torchvision", facts=SIZE),
    "torchvision-2": Case(V2.replace(window_rule="pad"), "torchvision-swinv2", "torchvision", facts=SIZE),
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but(["mmdetection"], CASES))
def test_a_strangers_file_goes_to_timm_and_back(name: str, vitport: Callable[..., Any], tmp_path: Path) -> None:
    case = CASES[name]
    conversion.save(checkpoint(case.config, dtype=np.float32), tmp_path / "ours.pth", format=case.format)
    source, timm, back = (tmp_path / file for file in ("theirs.pth", "timm.safetensors", "back.pth"))
    strange(source, tmp_path / "ours.pth", {"^": case.prefix}, case.wrapper, dict(case.more))
    facts: list[str] = []
    if case.facts:
        (tmp_path / "facts.json").write_text(json.dumps({name: case.config.to_dict()[name] for name in case.facts}))
        facts = ["--config", str(tmp_path / "facts.json")]
    seen = vitport("inspect", source, *facts, "--json")
    assert seen.code == 0, seen.err
    assert json.loads(seen.out)["format"] == case.format
    there = vitport("convert", source, timm, "--to", "timm", "--verify", *facts)
    assert there.code == 0, there.out + there.err
    assert "\nverified: every block agrees with the source" in there.out
    again = vitport("convert", timm, back, "--to", case.group, "--verify")
    assert again.code == 0, again.out + again.err
    assert "\nverified: every block agrees with the source" in again.out
    expected = torch.load(tmp_path / "ours.pth", weights_only=True)
    found = torch.load(back, weights_only=True)
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


KINDS = ["Swin", "Swinv2"]
AUTO = {
    "Model": transformers.AutoModel,
    "ForImageClassification": transformers.AutoModelForImageClassification,
    "Backbone": None,
}
"""The auto class of each kind; that of backbones asks the Hub before it reads a folder."""


@pytest.mark.parametrize("kind", slow_but(["Model"], AUTO))
@pytest.mark.parametrize("version", slow_but(["Swin"], KINDS))
def test_a_folder_of_transformers_goes_to_timm_and_back(
    version: str, kind: str, vitport: Callable[..., Any], tmp_path: Path
) -> None:
    """What comes back is loaded by the auto class with no key missing and none unexpected, into the same weights."""
    sizes: dict[str, Any] = {
        "image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4,
        "num_labels": 3,
    }  # fmt: skip
    if kind == "Backbone":
        sizes["out_features"] = ["stage1", "stage2"]
    make, theirs = (getattr(transformers, f"{version}{what}") for what in ("Config", kind))
    model = randomize(theirs(make(**sizes)))
    model.save_pretrained(tmp_path / "theirs")
    folders = {name: tmp_path / name for name in ("theirs", "timm.safetensors", "back")}
    assert vitport("inspect", folders["theirs"]).code == 0
    for first, second, form in (("theirs", "timm.safetensors", "timm"), ("timm.safetensors", "back", "huggingface")):
        done = vitport("convert", folders[first], folders[second], "--to", form, "--verify")
        assert done.code == 0, done.out + done.err
        assert "\nverified: every block agrees with the source" in done.out
    again, told = (AUTO[kind] or theirs).from_pretrained(str(tmp_path / "back"), output_loading_info=True)
    assert type(again) is type(model)
    unused = {"swin.layernorm.weight", "swin.layernorm.bias"} if kind == "Backbone" else set()  # it never runs them
    assert {key for keys in told.values() for key in keys} <= unused
    state = again.state_dict()
    assert set(state) == set(model.state_dict())
    for key, tensor in model.state_dict().items():
        assert key in unused or torch.equal(state[key], tensor), key
    on_disk, original = (load_file(tmp_path / folder / "model.safetensors") for folder in ("back", "theirs"))
    assert set(on_disk) == set(original) - unused
    assert json.loads((tmp_path / "back" / "config.json").read_text())["architectures"] == [type(model).__name__]
