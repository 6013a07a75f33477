"""What the README tells people to run is what .ci/run runs."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ("pip", "pytest")


def _calls(text: str, folder: str) -> dict[str, str]:
    """The arguments of each call of pip and pytest in a virtual environment's folder; quotes do not matter."""
    calls = [call.strip() for line in text.splitlines() for call in line.split("&&")]
    found = {}
    for call in calls:
        program, _, arguments = call.replace('"', "").replace("'", "").partition(" ")
        if program in {f"{folder}/bin/{name}" for name in PROGRAMS}:
            found[program.rpartition("/")[2]] = arguments.strip()
    return found


def _ci() -> str:
    return (ROOT / ".ci" / "run").read_text()


def test_ci_installs_and_tests_as_the_readme_says() -> None:
    lines = re.findall(r"^.*\.venv/bin/pytest.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) == 1, "the README has one line that installs and runs the tests"
    assert "python3 -m venv .venv" in lines[0]
    assert _calls(lines[0], ".venv") == _calls(_ci(), "$venv")
    assert set(_calls(lines[0], ".venv")) == set(PROGRAMS)


def test_ci_has_its_own_environment_and_stops_at_the_first_failure() -> None:
    assert _calls(_ci(), "$venv") == {
        "pip": "install -q -c constraints.txt -e .[dev]",
        "pytest": "-n auto --dist loadfile",
    }
    assert "set -euo pipefail" in _ci()
    assert "|| true" not in _ci()
    assert "venv=$folder/venv" in _ci()


def test_ci_builds_the_documentation_and_counts_its_warnings() -> None:
    """With --quiet mkdocs 1.6 neither prints a warning nor fails on it, --strict or not."""
    builds = re.findall(r"^.*/mkdocs.*$", _ci(), re.MULTILINE)
    assert builds == ['"$venv/bin/mkdocs" build --strict --site-dir "$folder/site"']


@pytest.mark.parametrize("script", sorted((ROOT / ".ci").iterdir()), ids=lambda path: path.name)
def test_scripts_can_be_run(script) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def _normal(requirement: str) -> str:
    """The name in a requirement, as the index spells it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>~\[; ]", requirement)[0]).lower()


def test_constraints_are_exact_and_cover_what_pyproject_names() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins), "exact, without local builds"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {_normal(name) for name in sum(project["optional-dependencies"].values(), project["dependencies"])}
    assert {"jax", "torch", "pytest"} <= named
    assert named - {"vitport"} <= {_normal(pin) for pin in pins}
