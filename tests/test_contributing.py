"""What contributors and GitHub are told to run exists. Oracle: the files of the tree."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROGRAMS = {"gh", "python"}
"""What the runners bring along."""
WORDS = ("test", "lint", "docs", "bench", "release")


def jobs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())["jobs"]


def commands(path: Path) -> list[str]:
    return [step["run"] for job in jobs(path).values() for step in job.get("steps", []) if "run" in step]


def paths_in(command: str) -> list[str]:
    """Arguments that look like paths of this tree."""
    return [word for word in shlex.split(command) if re.match(r"(tests|docs|scripts|benchmarks|\.ci)/", word)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_commands_of_a_workflow_exist(path: Path) -> None:
    found = commands(path)
    assert found
    for command in found:
        first, *rest = shlex.split(command)
        assert first in PROGRAMS or (ROOT / first).is_file(), command
        assert all((ROOT / place).exists() for place in paths_in(command)), command
        module = rest[1] if rest[:1] == ["-m"] else ""
        if module.startswith("scripts."):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), command


def test_the_workflows_are_what_they_are_for() -> None:
    """Which script runs where; a tag alone publishes, and only after everything passed."""
    ci, release = (
        yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text()) for name in ("ci", "release")
    )
    runs = {
        (job["runs-on"], step["run"])
        for job in ci["jobs"].values() for step in job["steps"] if "run" in step
    }  # fmt: skip
    assert {
        ("ubuntu-latest", ".ci/run"),
        ("ubuntu-latest", ".ci/newest-jax"),
        ("macos-latest", ".ci/torch-alone"),
        ("ubuntu-latest", "python -m build"),
    } <= runs
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert release["jobs"]["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in ci[True]
    publishes = {name for name, job in release["jobs"].items() if "permissions" in job}
    assert publishes == {"pypi", "github", "pages"}
    assert set(release["jobs"]["pypi"]["needs"]) == {"ci", "build"}
    assert all(release["jobs"][name]["needs"] == ["pypi"] for name in ("github", "pages"))
    assert 'python -m scripts.release "$GITHUB_REF_NAME"' in commands(ROOT / ".github" / "workflows" / "release.yml")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_waits_for_jobs_that_exist_and_takes_what_another_leaves(path: Path) -> None:
    found = jobs(path)
    given: list[str] = []
    taken: list[str] = []
    for job in found.values():
        assert set(job.get("needs", [])) <= set(found)
        for step in job.get("steps", []):
            assert ("uses" in step) != ("run" in step)
            action = step.get("uses", "")
            assert not action or re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v1)", action), (
                "an action of a fixed version"
            )
            if action.startswith("actions/upload-artifact"):
                given.append(step["with"]["name"])
            if action.startswith("actions/download-artifact"):
                taken.append(step["with"]["name"])
    assert len(given) == len(set(given))
    assert set(taken) <= set(given)


def test_the_task_runner_has_five_words_and_each_does_something() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^(\w+):.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert tuple(name for name, _ in targets) == WORDS
    assert f".PHONY: {' '.join(WORDS)}\n" in text
    for module in re.findall(r"-m (benchmarks|scripts\.\w+)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
    assert "$(PYTHON) -m pytest -n auto --dist loadfile\n" in text  # as the README and .ci/run do


@pytest.mark.parametrize("path", sorted((ROOT / ".ci").iterdir()), ids=lambda path: path.name)
def test_the_tests_that_a_script_names_exist(path: Path) -> None:
    for line in path.read_text().splitlines():
        if re.search(r"(bin/|-m )pytest", line):
            assert all((ROOT / place).exists() for place in paths_in(line)), line


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_what_a_page_for_contributors_names_exists(name: str) -> None:
    """Links, files in code, and the arguments of its commands."""
    text = (ROOT / name).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    code = re.findall(r"`([\w./*-]+/[\w./*-]*)`", text)
    fences = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    paths = [place for fence in fences for line in fence.splitlines() for place in paths_in(line)]
    assert links or code
    for place in {*links, *code, *paths} - {"dist/", "site/"}:
        assert list(ROOT.glob(place)) or (ROOT / place).exists(), place


def test_every_word_of_the_task_runner_is_explained() -> None:
    assert re.findall(r"`make (\w+)`", (ROOT / "CONTRIBUTING.md").read_text()) == list(WORDS)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_issue_forms_have_what_github_asks_of_them(path: Path) -> None:
    """https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests"""
    form = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
        assert {"name", "url", "about"} == set(form["contact_links"][0])
        return
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in ("input", "textarea", "dropdown")
        assert field["attributes"]["label"]
        assert (field["type"] == "dropdown") == ("options" in field["attributes"])


def test_pre_commit_runs_the_ruff_that_ci_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    pinned = re.search(r"^ruff==.+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format"]
    assert all(hook["additional_dependencies"] == [pinned[0]] for hook in hooks)


def test_the_project_s_addresses_are_the_same_everywhere() -> None:
    home, pages = PROJECT["urls"]["Homepage"], PROJECT["urls"]["Documentation"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["repository-code"], citation["url"], citation["license"]) == (home, pages, PROJECT["license"])
    site = (ROOT / "mkdocs.yml").read_text()
    assert f"\nsite_url: {pages}\n" in site
    assert f"\nrepo_url: {home}\n" in site
    for name in ("CONTRIBUTING.md", "SECURITY.md", ".github/ISSUE_TEMPLATE/config.yml"):
        text = (ROOT / name).read_text()
        assert home in text
        assert all(url.startswith(home) for url in re.findall(r"https://github\.com/vitport[^\s>)]*", text))
    assert all(url.startswith((home, pages)) for url in PROJECT["urls"].values())
