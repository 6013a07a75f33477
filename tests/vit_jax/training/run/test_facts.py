"""The files of a work directory that say what a run is."""

from __future__ import annotations

import importlib.metadata
import json
from types import SimpleNamespace

from vit_jax.training.recipe.config import TrainConfig
from vit_jax.training.run.facts import write_facts


def test_sources_that_were_not_installed_have_no_version(tmp_path, monkeypatch) -> None:
    """As on a machine that reaches no package registry: ``benchmarks/gpu.sh``."""
    known = importlib.metadata.version

    def version(name: str) -> str:
        if name == "vitport":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    setup = SimpleNamespace(options=TrainConfig(), program={"scan": False})
    write_facts(setup, tmp_path)  # type: ignore[arg-type]
    found = json.loads((tmp_path / "versions.json").read_text())
    assert found["vitport"] is None
    assert found["jax"] == known("jax")
    assert found["program"] == {"scan": False}
