"""Compiled programs in a bucket: a second process, of another host, compiles nothing. Oracle: JAX's own count."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conversion.store import Objects
from tests.stores import running
from tests.vit_cli.training import ROOT

PROGRAM = """
import sys
import jax
from vit_cli.compilation_cache import keeping_programs

counts = {"hits": 0, "misses": 0}
def count(event, **_):
    for name in counts:
        counts[name] += event == f"/jax/compilation_cache/cache_{name}"
jax.monitoring.register_event_listener(count)
with keeping_programs(sys.argv[1]):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    print(jax.jit(lambda x: jax.numpy.sin(x) @ x.T)(jax.numpy.ones((3, 5)))[0, 0])
print(counts)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gs", "s3"])
def test_programs_in_a_bucket_are_compiled_once(kind, tmp_path, monkeypatch) -> None:
    with running(kind, monkeypatch, tmp_path / "cache") as store:
        told = [_told(f"{store.address}/programs") for _ in range(2)]
        names = Objects(f"{store.address}/programs").names()
        assert told[0].splitlines()[0] == told[1].splitlines()[0] != ""
        assert "'hits': 0" in told[0]
        assert f"'hits': {len(names)}, 'misses': 0" in told[1]
        assert names
        assert all(name.endswith("-cache") for name in names)
        if kind == "gs":
            store.refused = "programs"
            assert "is refused" in _told(f"{store.address}/programs", status=1)


def _told(address: str, status: int = 0) -> str:
    mine = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    mine = {name: value for name, value in mine.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, address], env=mine, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr
