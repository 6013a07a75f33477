"""`vitport doctor`. Oracles: the metadata of installed distributions, the number of simulated devices."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vit_cli.training import environment
from vit_cli.main import main

pytestmark = pytest.mark.jax_alone


def test_it_tells_versions_devices_storage_and_the_sum_over_all_devices(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vit_cli", "doctor", "--path", str(tmp_path), str(tmp_path / "new" / "run"), "--json"],
        env=environment(4), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["versions"]["jax"] == importlib.metadata.version("jax")
    assert (found["devices"]["all"], found["devices"]["process"]) == (4, "0 of 1")
    assert found["all-reduce"].startswith("right on 4 devices")
    assert "16 MiB written and renamed" in found[f"storage {tmp_path}"]
    assert f"nearest folder that is there: {tmp_path}" in found[f"storage {tmp_path / 'new' / 'run'}"]
    assert list(tmp_path.iterdir()) == []
    assert "host_platform_device_count=4" in found["machine"]["XLA_FLAGS"]


def test_what_fails_is_a_line_and_a_status(tmp_path, capsys, monkeypatch) -> None:
    def full(*path: object, **how: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    assert main(["doctor", "--path", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert f"storage {tmp_path}: fails: OSError: [Errno 28] No space left on device" in told
    assert "all-reduce: right on" in told
    assert Path(tmp_path).is_dir()


def test_a_path_that_is_no_folder_is_told_and_nothing_is_written_beside_it(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda **how: pytest.fail("written"))
    (tmp_path / "file").write_text("mine")
    assert main(["doctor", "--path", str(tmp_path / "file")]) == 1
    assert f"{tmp_path / 'file'} is not a folder" in capsys.readouterr().out
