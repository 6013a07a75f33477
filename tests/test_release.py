"""``make release``: when it refuses a tree, and what it builds. Oracle: repositories made for each case."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import release


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A committed tree of version 1.2.0, one module large, whose changelog is dated."""
    project = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    project += '[project]\nname = "vitport"\nversion = "1.2.0"\n[tool.setuptools]\npy-modules = ["one"]\n'
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "one.py").write_text("")
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.0 (2026-11-27)\n\n- All.\n\n## 1.1.0 (2026-01-01)\n")
    (tmp_path / ".gitignore").write_text("dist/\n*.egg-info/\nbuild/\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        git(tmp_path, *command)
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    who = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
    subprocess.run(["git", *who, *arguments], cwd=root, check=True)


def undated(root: Path) -> None:
    (root / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.0 (unreleased)\n")
    git(root, "commit", "-q", "-a", "-m", "Undated")


def other_version(root: Path) -> None:
    (root / "CHANGELOG.md").write_text("# Changes\n\n## 1.1.0 (2026-01-01)\n")
    git(root, "commit", "-q", "-a", "-m", "Old")


def no_heading(root: Path) -> None:
    (root / "CHANGELOG.md").write_text("# Changes\n")
    git(root, "commit", "-q", "-a", "-m", "Empty")


def changed(root: Path) -> None:
    (root / "one.py").write_text("x = 1\n")


def tagged(root: Path) -> None:
    git(root, "tag", "v1.2.0")


@pytest.mark.parametrize(
    ("spoil", "args", "fault"),
    [
        (undated, [], "CHANGELOG.md dates 1.2.0 'unreleased': write the day"),
        (other_version, [], "CHANGELOG.md begins with 1.1.0, pyproject.toml says 1.2.0"),
        (no_heading, [], "CHANGELOG.md has no heading"),
        (changed, [], "changes that are not committed"),
        (tagged, [], "v1.2.0 is tagged already"),
        (tagged, ["v1.3.0"], "The tag is v1.3.0, pyproject.toml says 1.2.0"),
    ],
)
def test_a_tree_that_is_not_ready_is_refused_with_one_sentence(
    repository: Path, spoil: Callable[[Path], None], args: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(repository)
    assert release.main(args, repository) == 1
    told = capsys.readouterr().err
    assert fault in told
    assert told.count("\n") == 1
    assert not (repository / "dist").exists()


@pytest.mark.parametrize("args", [[], ["v1.2.0"]])
def test_a_ready_tree_is_built_and_the_next_steps_are_told(
    repository: Path, args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old distributions are not published again; the build environment is this one, for want of a network."""
    if args:
        tagged(repository)
    (repository / "dist").mkdir()
    (repository / "dist" / "vitport-1.1.0.tar.gz").write_bytes(b"old")
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run",
        lambda command, **options: run([*command, "--no-isolation"] if "build" in command else command, **options),
    )  # fmt: skip
    assert release.main(args, repository) == 0
    built = {path.name for path in (repository / "dist").iterdir()}
    assert built == {"vitport-1.2.0-py3-none-any.whl", "vitport-1.2.0.tar.gz"}
    assert "git tag -a v1.2.0" in capsys.readouterr().out
