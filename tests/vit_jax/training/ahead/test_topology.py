"""Slices of chips that are not here, and the command's sentences about them. Oracle: Google's documentation."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from vit_cli.main import main
from vit_jax.training.ahead.topology import Topology, describe
from vit_jax.training.devices.chips import H100, V5E, V5P
from vit_spec import VitportError


def chips(*sizes: int) -> tuple[Any, ...]:
    at = [(x, y, z) for z in range((*sizes, 1)[2]) for y in range(sizes[1]) for x in range(sizes[0])]
    return tuple(SimpleNamespace(coords=each, process_index=number // 4) for number, each in enumerate(at))


def seconds(topology: Topology, count: int) -> float:
    """Of a gather of one gigabyte among the first devices."""
    return 1e9 * topology.gather_seconds(topology.devices[:count])


def test_an_axis_that_is_not_closed_to_a_ring_carries_half() -> None:
    """v5e closes an axis of 16 chips, v5p one of 4; a group along two axes uses the links of both."""
    small = Topology("v5e:4x4", V5E, (4, 4), chips(4, 4))
    assert seconds(small, 4) == pytest.approx(3 / 4 / 50)
    assert seconds(small, 16) == pytest.approx(15 / 16 / 100)
    assert small.hosts == 4
    pod = Topology("v5e:16x16", V5E, (16, 16), chips(16, 16))
    assert seconds(pod, 16) == pytest.approx(15 / 16 / 100)
    assert seconds(pod, 8) == pytest.approx(7 / 8 / 50)
    assert seconds(pod, 256) == pytest.approx(255 / 256 / 200)
    cube = Topology("v5p:4x4x4", V5P, (4, 4, 4), chips(4, 4, 4))
    assert seconds(cube, 64) == pytest.approx(63 / 64 / 600)


def test_gpus_gather_within_hosts_then_between_them() -> None:
    """NVLink's 450 GB/s, then a port of 50 GB/s for each GPU, which brings the part that it lacks."""
    hosts = tuple(SimpleNamespace(process_index=number // 8) for number in range(16))
    cluster = Topology("h100:2x8", H100, (2, 8), hosts)
    assert seconds(cluster, 8) == pytest.approx(7 / 8 / 450)
    assert seconds(cluster, 16) == pytest.approx(7 / 8 / 450 + 1 / 2 / 8 / 50)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v3:4x4", "names no known chips: give one of v4, v5e, v5p, v6e"),
        ("v5e", "is no arrangement of TPU v5e: give chips along each of the 2 axes of their links, such as v5e:2x2"),
        ("v5e:4x0", "is no arrangement of TPU v5e"),
        ("v5e:4x4x4", "is no arrangement of TPU v5e"),
        ("v5p:4x4", "give chips along each of the 3 axes of their links, such as v5p:2x2x2"),
        ("h100:9", "is no arrangement of H100 SXM: give hosts and GPUs of each, such as h100:2x8"),
        ("h100:8x2x2", "is no arrangement of H100 SXM"),
        ("v5e:4x4", r"pip install 'vitport\[aot-tpu\]'"),
        ("h100:2x8", r"pip install 'vitport\[aot-cuda\]'"),
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
        (("--dry-run", "--on", "h100"), "--on h100 is no arrangement of H100 SXM"),
    ],
)
def test_options_that_do_not_go_together(options, sentence, tmp_path, capsys) -> None:
    args = ["train", "--model", "vit_tiny_patch16_224", "--workdir", str(tmp_path / "run"), "--steps", "1", *options]
    assert main(args) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
