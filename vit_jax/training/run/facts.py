"""The files of a work directory that say what the run is."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from pathlib import Path

import jax

from vit_jax.training.recipe.config import CONFIG
from vit_jax.training.run.setup import Setup
from vit_jax.training.run.writing import writing

VERSIONS = "versions.json"


def write_facts(setup: Setup, workdir: Path) -> None:
    """The configuration, and what computed the run: versions, devices, and what was chosen for ``auto``.

    Raises:
        UnwrittenError: if they cannot be written.
    """
    names = ("vitport", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    versions = {"python": platform.python_version()} | {name: _version(name) for name in names}
    facts = {
        **versions,
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "program": setup.program,
        "command": sys.argv,
    }
    for name, values in {CONFIG: setup.options.to_dict(), VERSIONS: facts}.items():
        aside = workdir / f"{name}.part"
        with writing(aside):
            aside.write_text(json.dumps(values, indent=2) + "\n")
            aside.replace(workdir / name)


def _version(name: str) -> str | None:
    """``None`` for what is imported without having been installed, as vitport is from a folder of its sources."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
