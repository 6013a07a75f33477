"""``verify`` of Swin Transformers: every block of the source by its own names, and of the result in both frameworks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import conversion
from tests.conversion.swin.models import BASE, checkpoint, weights
from vit_parity.proof import check_verifiable, verify_conversion
from vit_parity.verify import Original, verify
from vit_spec import SwinConfig, VitportError

V2 = BASE.replace(version=2, pretrained_window_sizes=(3, 2))
PAIRS: dict[str, tuple[SwinConfig, str, str]] = {
    "v1": (BASE, "microsoft-swin", "huggingface"),
    "v2": (V2, "torchvision", "mmpretrain"),
    "padded": (BASE.replace(image_size=(24, 40), window_sizes=5), "huggingface", "flax"),
}


def test_the_changes_that_were_asked_for_are_proven_too(tmp_path: Path) -> None:
    conversion.save(checkpoint(V2, dtype=np.float32), tmp_path / "source", format="torchvision")
    changes = conversion.Changes(dtype="float16", head="drop")
    done = conversion.convert(tmp_path / "source", tmp_path / "result", to="huggingface", changes=changes)
    assert verify_conversion(done).passed
    with pytest.raises(VitportError, match=r"change window_size \(--window-size\) then"):
        check_verifiable(conversion.Changes(window_size=8))


@pytest.mark.parametrize("name", PAIRS)
def test_a_conversion_passes_and_a_mistake_in_it_does_not(name: str, tmp_path: Path) -> None:
    config, source, target = PAIRS[name]
    conversion.save(checkpoint(config, dtype=np.float32), tmp_path / "source", format=source)
    read = conversion.load(tmp_path / "source", model=config)
    conversion.save(read, tmp_path / "result", format=target)
    result = conversion.load(tmp_path / "result", model=config)
    proof = verify(Original(tmp_path / "source", read), tmp_path / "result", result)
    assert proof.passed, proof.verdict
    named = {stage.name for check in proof.checks for stage in check.stages}
    assert {"embed", "layers.0.blocks.1", "layers.1.blocks.0", "norm", "head"} <= named
    if name == "padded":  # the other two show that mistakes are seen, at half the cost
        return
    wrong = weights(config, dtype=np.float32)
    key = "layers.1.downsample.reduction.weight"
    wrong[key] = wrong[key][:, ::-1].copy()
    conversion.save(conversion.Checkpoint.of(result.config, wrong), tmp_path / "wrong", format=target)
    bad = conversion.load(tmp_path / "wrong", model=config)
    assert "first at layers.1." in verify(Original(tmp_path / "source", read), tmp_path / "wrong", bad).verdict
