"""Which way to run a step is taken. The compiler and its roofline are formulas here; compiled: test_compiled."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.vit_jax.training.ahead.test_topology import chips
from vit_cli import ahead
from vit_cli.main import main
from vit_jax.training.ahead import search as module
from vit_jax.training.ahead.compile import TooLargeError
from vit_jax.training.ahead.search import search
from vit_jax.training.ahead.topology import Topology
from vit_jax.training.devices.chips import H100, V5E
from vit_jax.training.recipe.config import ModelOptions, TrainConfig
from vit_jax.training.recipe.execution import MeshShape, mesh_words
from vit_jax.training.scaling import rank
from vit_spec import VitportError, get_model

SLICE = Topology("v5e:2x4", V5E, (2, 4), chips(2, 4))
NODE = Topology("h100:1x8", H100, (1, 8), chips(8, 1))
OPTIONS = TrainConfig(ModelOptions("vit_base_patch16_224"), batch=2048, steps=10, precision="bfloat16")


@pytest.fixture
def compiled(monkeypatch) -> list[TrainConfig]:
    """What was compiled. A scan without FSDP does not fit, nor what is unrolled without rematerialisation; the more
    FSDP, the faster, and unrolled twice as fast."""
    tried: list[TrainConfig] = []
    mesh = SimpleNamespace(devices=SimpleNamespace(flat=SLICE.devices), size=8)

    def compile_ahead(options: TrainConfig, topology: Topology, classes: int | None) -> Any:
        assert topology in (SLICE, NODE) and classes == 1000
        tried.append(options)
        if options.mesh.fsdp == 1 or (not options.scan and options.remat == "auto"):
            raise TooLargeError(topology, 20e9, V5E.memory)
        return SimpleNamespace(options=options, memory=SimpleNamespace(used=9e9), mesh=mesh)

    def roofline(found: Any) -> Any:
        return SimpleNamespace(seconds=1 / found.options.mesh.fsdp / (1 if found.options.scan else 2), mfu=0.25)

    model = get_model("vit_base_patch16_224").config
    monkeypatch.setattr(module, "compile_ahead", compile_ahead)
    monkeypatch.setattr(module, "roofline", roofline)
    monkeypatch.setattr(module, "set_up", lambda options, devices, classes: SimpleNamespace(model=model))
    return tried


def test_the_fastest_that_the_compiler_takes_comes_first(compiled) -> None:
    told: list[str] = []
    made = search(OPTIONS, SLICE, 1000, told.append)
    paper = rank(get_model("vit_base_patch16_224").config, 2048, 8, V5E)
    assert [options.mesh for options in compiled] == [one.step.mesh for one in paper[: len(compiled)]]
    assert [options.recipe.accumulation for options in compiled] == [
        one.step.accumulation for one in paper[: len(compiled)]
    ]
    fitting = [way for way in made if way.found is not None]
    assert len(fitting) == 3
    assert made[: len(fitting)] == fitting
    sizes = [way.predicted.step.mesh.fsdp for way in fitting]
    assert sizes == sorted(sizes, reverse=True)
    assert told[0] == f"the best of {len(paper)} ways until 3 fit, each about 1 min on two free cores"
    assert {way.change for way in made} == set(told[1:])
    assert any(way.used == 20e9 for way in made)  # the simplest mesh, data alone, which the paper model ranks high
    data, fsdp, tensor = (getattr(made[0].predicted.step.mesh, axis) for axis in ("data", "fsdp", "tensor"))
    axes = [f"{name}={size}" for name, size in (("data", data), ("fsdp", fsdp), ("tensor", tensor)) if size > 1]
    assert made[0].change.startswith(f"--mesh {','.join(axes)} --scan")
    assert all(options.scan for options in compiled)  # twelve blocks take TPUs' compiler too long


def test_the_fastest_scan_is_unrolled_with_the_least_rematerialisation_that_fits(compiled) -> None:
    made = search(OPTIONS, NODE, 1000)
    scans, others = ([options for options in compiled if options.scan is scan] for scan in (True, False))
    assert compiled == scans + others
    assert [options.remat for options in others] == ["auto", "dots"]
    most = max(options.mesh.fsdp for options in scans)
    assert {options.mesh.fsdp for options in others} == {most}
    assert made[0].change == f"--mesh {mesh_words(others[0].mesh)} --no-scan --remat dots"
    assert made[0].predicted.step.scan is False
    assert made[-1].found is None


def test_what_fits_nowhere_is_one_sentence(compiled, monkeypatch) -> None:
    def too_large(options: TrainConfig, topology: Topology, classes: int | None) -> Any:
        raise TooLargeError(topology, 20e9, V5E.memory)

    monkeypatch.setattr(module, "compile_ahead", too_large)
    with pytest.raises(VitportError, match=r"No mesh of v5e:2x4 fits a batch of 2048; of \d+ that should fit, none of"):
        search(OPTIONS, SLICE, 1000)
    monkeypatch.setattr(module, "rank", lambda *_: [])
    with pytest.raises(VitportError, match="No mesh of v5e:2x4 fits a batch of 2048: take more chips"):
        search(OPTIONS, SLICE, 1000)


def test_the_users_own_mesh_is_not_asked(compiled) -> None:
    """One that the slice does not have would be refused otherwise."""
    other = dataclasses.replace(OPTIONS, mesh=MeshShape(3, 5, 7))
    assert search(other, SLICE, 1000)[0].change == search(OPTIONS, SLICE, 1000)[0].change


def test_the_command_prints_json(compiled, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(ahead, "_described", lambda on: SLICE)
    monkeypatch.setattr("vit_jax.training.ahead.report.values", lambda compiled, found: {"chips": 8})
    options = ["--model", "vit_base_patch16_224", "--batch", "2048", "--steps", "10", "--precision", "bfloat16"]
    command = ["train", "--workdir", str(tmp_path / "run"), *options, "--dry-run", "--on", "v5e:2x4", "--search"]
    assert main([*command, "--classes", "1000", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["use"] == printed["ways"][0]["options"]
    assert printed["ways"][0]["chips"] == 8
    assert "chips" not in printed["ways"][-1]  # does not fit
    assert main([*command[:-3], "--search"]) == 2
    assert "--search is for --dry-run --on TOPOLOGY" in capsys.readouterr().err
