"""Where libtpu is installed and no TPU is here, the command keeps JAX on the CPU; a device is never hidden."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vit_cli import platforms

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with libtpu and without any device."""
    for name in [name for name in os.environ if name.startswith(("TPU_", "JAX_"))]:
        monkeypatch.delenv(name)
    environment = dict(os.environ)
    monkeypatch.setattr(platforms.os, "environ", environment)
    found = SimpleNamespace(root=tmp_path, environment=environment, modules={"libtpu"}, points=[])
    monkeypatch.setattr(platforms, "_ROOT", tmp_path)
    monkeypatch.setattr(platforms.importlib.util, "find_spec", lambda name: name in found.modules or None)
    monkeypatch.setattr(platforms, "entry_points", lambda group: found.points)
    vendor = tmp_path / "sys/bus/pci/devices/0000:00:01.0/vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x1af4\n")  # virtio
    (tmp_path / "dev" / "vfio").mkdir(parents=True)
    (tmp_path / "dev" / "vfio" / "vfio").touch()  # the driver's own file, without a device
    return found


def test_without_any_device_jax_takes_the_cpu(machine) -> None:
    platforms.look_for_no_tpu()
    assert machine.environment["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize("fact", [
    "setting", "worker", "forced", "accel", "vfio", "pci", "plugin", "entry point", "no libtpu",
])  # fmt: skip
def test_nothing_is_set_where_a_device_may_be(fact, machine) -> None:
    {
        "setting": lambda: machine.environment.update(JAX_PLATFORMS=""),
        "worker": lambda: machine.environment.update(TPU_WORKER_ID="0"),
        "forced": lambda: machine.environment.update(JAX_FORCE_TPU_INIT="1"),
        "accel": (machine.root / "dev" / "accel0").touch,
        "vfio": (machine.root / "dev" / "vfio" / "0").touch,
        "pci": lambda: (machine.root / "sys/bus/pci/devices/0000:00:01.0/vendor").write_text("0x1ae0\n"),
        "plugin": lambda: machine.modules.add("jax_plugins"),
        "entry point": lambda: machine.points.append("cuda"),
        "no libtpu": machine.modules.clear,
    }[fact]()
    before = dict(machine.environment)
    platforms.look_for_no_tpu()
    assert machine.environment == before


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.skipif(platforms.has_accelerator() or platforms.has_plugins(), reason="there may be other devices")
def test_the_command_says_nothing_of_tpus() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "TPU_"))}
    doctor = [sys.executable, "-m", "vit_cli", "doctor"]
    done = subprocess.run(doctor, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "cpu" in done.stdout
    assert "TPU" not in done.stderr
