"""Slices of chips that are not here, and the command's sentences about them. Oracle: Google's documentation."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from vit_cli.main import main
from vit_jax.training.ahead.topology import Topology, describe
from vit_jax.training.devices.chips import V5E, V5P
from vit_spec import VitportError


def chips(*sizes: int) -> tuple[Any, ...]:
    at = [(x, y, z) for z in range((*sizes, 1)[2]) for y in range(sizes[1]) for x in range(sizes[0])]
    return tuple(SimpleNamespace(coords=each, process_index=number // 4) for number, each in enumerate(at))


def test_an_axis_that_is_not_closed_to_a_ring_carries_half() -> None:
    """v5e closes an axis of 16 chips, v5p one of 4; a group along two axes uses the links of both."""
    small = Topology("v5e:4x4", V5E, (4, 4), chips(4, 4))
    assert small.bandwidth(small.devices[:4]) == 50e9
    assert small.bandwidth(small.devices) == 100e9
    assert small.hosts == 4
    pod = Topology("v5e:16x16", V5E, (16, 16), chips(16, 16))
    assert pod.bandwidth(pod.devices[:16]) == 100e9
    assert pod.bandwidth(pod.devices[:8]) == 50e9
    assert pod.bandwidth(pod.devices) == 200e9
    cube = Topology("v5p:4x4x4", V5P, (4, 4, 4), chips(4, 4, 4))
    assert cube.bandwidth(cube.devices) == 600e9


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v3:4x4", "names no known chips: give one of v4, v5e, v5p, v6e"),
        ("v5e", "such as v5e:4x4"),
        ("v5e:4x0", "names no known chips"),
        ("v5e:4x4x4", "has 3 axes, and slices of TPU v5e have 2"),
        ("v5p:4x4", "has 2 axes, and slices of TPU v5p have 3"),
        ("v5e:4x4", r"pip install 'vitport\[aot-tpu\]'"),
    ],
)
def test_what_cannot_be_compiled_for_is_told_in_a_sentence(name, sentence, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VitportError, match=sentence):
        describe(name)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--on", "v5e:4x4"), "trains nothing: give --dry-run too"),
        (("--dry-run", "--json"), "--json is for --dry-run --on TOPOLOGY"),
        (("--dry-run", "--classes", "10"), "--classes is for --dry-run --on TOPOLOGY"),
        (("--dry-run", "--on", "h100"), "--on h100 names no known chips"),
    ],
)
def test_options_that_do_not_go_together(options, sentence, tmp_path, capsys) -> None:
    args = ["train", "--model", "vit_tiny_patch16_224", "--workdir", str(tmp_path / "run"), "--steps", "1", *options]
    assert main(args) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
