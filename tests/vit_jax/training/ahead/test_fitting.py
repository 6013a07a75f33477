"""What is tried for a step that does not fit. The compiler is a formula here: 40 GB for all that a chip has to hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.vit_jax.training.ahead.test_topology import chips
from vit_jax.training.ahead import fitting
from vit_jax.training.ahead.compile import TooLargeError
from vit_jax.training.ahead.topology import Topology
from vit_jax.training.devices.chips import V5E
from vit_jax.training.recipe.config import TrainConfig
from vit_jax.training.recipe.execution import MeshShape
from vit_spec import VitportError

SLICE = Topology("v5e:2x4", V5E, (2, 4), chips(2, 4))


def needed(options: TrainConfig) -> float:
    """Activations that accumulation and rematerialisation divide, and a state that FSDP does."""
    activations = 36e9 / options.recipe.accumulation / (12 if options.remat == "full" else 1)
    return activations + 4e9 / options.mesh.fsdp


def compiler(scale: float) -> Any:
    def compile_ahead(options: TrainConfig, topology: Topology, classes: int | None) -> Any:
        if options.recipe.accumulation > 64:
            raise VitportError("A batch does not divide.")
        used = scale * needed(options)
        if used > V5E.memory:
            raise TooLargeError(topology, used, V5E.memory)
        return SimpleNamespace(memory=SimpleNamespace(used=used))

    return compile_ahead


def tried(scale: float, monkeypatch) -> tuple[list[tuple[str, bool]], str]:
    monkeypatch.setattr(fitting, "compile_ahead", compiler(scale))
    options = TrainConfig(batch=512, mesh=MeshShape(8))
    found = TooLargeError(SLICE, scale * needed(options), V5E.memory)
    told: list[str] = []
    made = fitting.attempts(options, SLICE, 1000, found, told.append)
    assert {one.change for one in made} <= set(told)
    return [(one.change, one.fits) for one in made], fitting.advice(made)


def test_each_way_is_tried_until_it_fits(monkeypatch) -> None:
    made, advice = tried(1.0, monkeypatch)
    assert made == [
        ("--remat full", True),
        ("--recipe.accumulation 4", True),
        ("--mesh data=2,fsdp=4", False),
        ("--mesh fsdp=8", False),
    ]
    assert advice == (
        "it compiles with --remat full (7.0 GB), --recipe.accumulation 4 (13.0 GB); it does not fit with "
        "--mesh data=2,fsdp=4 (37.0 GB), --mesh fsdp=8 (36.5 GB) either."
    )


def test_what_fits_only_together_is_tried_together(monkeypatch) -> None:
    made, advice = tried(5.0, monkeypatch)
    assert made[-1] == ("--remat full --mesh fsdp=8 --recipe.accumulation 8", True)
    assert "it compiles with --remat full --mesh fsdp=8 --recipe.accumulation 8" in advice


def test_more_chips_are_the_advice_where_nothing_fits(monkeypatch) -> None:
    made, advice = tried(100.0, monkeypatch)
    assert not any(fits for _, fits in made)
    assert advice.startswith("take more chips, or a smaller batch; it does not fit with")
