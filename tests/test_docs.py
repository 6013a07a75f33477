"""The documentation names what exists. Oracles: the packages, the command line's own parser, the files of the tree.

What the examples print is recorded by ``scripts.doc_examples``; mkdocs checks the links between pages.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from functools import partial
from pathlib import Path

import griffe
import pytest
import tyro

from scripts.doc_examples import EXAMPLE, NUMBER, rewritten
from scripts.docs_hooks import relinked
from vit_cli.download import default_cache
from vit_cli.main import SUBCOMMANDS, _later
from vit_cli.train import long_names, train_with_defaults

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
OURS = {path.parent.name for path in ROOT.glob("*/__init__.py")}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def _fences(page: Path, *languages: str) -> list[str]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


@each_page
def test_python_on_a_page_imports_what_exists(page) -> None:
    for text in _fences(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
                module = importlib.import_module(node.module)
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                assert not missing, f"{node.module} has no {', '.join(missing)}"
            elif isinstance(node, ast.Import):
                for name in node.names:
                    if name.name.split(".")[0] in OURS:
                        importlib.import_module(name.name)


NOT_THERE = {"conversion/formats/vit/jeonsworld.py"}
"""The example of adding a format."""


@pytest.mark.parametrize("page", sorted(set(PAGES) - {ROOT / "CHANGELOG.md"}), ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page) -> None:
    """Capitals stand for what the reader chooses."""
    named = set(re.findall(r"`([\w.*-]+/[\w./*-]+\.(?:py|md|npz))`", page.read_text(encoding="utf-8"))) - NOT_THERE
    assert [path for path in named if not re.search(r"[A-Z]{4}", path) and not list(ROOT.glob(path))] == []


def test_an_option_is_spelled_where_it_is_defined_alone() -> None:
    """Oracle: the sources; named models and timm's names aside. tests/test_new_option.py adds one to a copy."""
    sources = [path for package in OURS - {"tests", "benchmarks"} for path in (ROOT / package).rglob("*.py")]
    aside = {ROOT / "vit_spec/vit/options.py", *(ROOT / "vit_spec/vit/models").iterdir()}
    spelled = {path for path in set(sources) - aside if re.search(r"\bmlp_norm\b", path.read_text(encoding="utf-8"))}
    assert {path.name for path in spelled} == {"config.py", "parameters.py"}


def _commands(page: Path) -> list[list[str]]:
    """Arguments of each call of vitport in a block, up to a pipe; lines that leave something to the reader aside."""
    lines = [line for text in _fences(page, "", "sh", "console") for line in text.splitlines()]
    found = [match[1] for line in lines if (match := re.match(r"(?:\$ )?vitport (.*)", line)) and "…" not in line]
    return [shlex.split(arguments.partition(" | ")[0], comments=True) for arguments in found]


@each_page
def test_commands_on_a_page_are_commands_and_take_these_options(page) -> None:
    for arguments in _commands(page):
        assert arguments[0] in SUBCOMMANDS
        commands = {name: _later(run, listed=False) for name, run in SUBCOMMANDS.items()}
        if arguments[0] == "train":  # its arguments decide its defaults, and have short names
            arguments = ["train", *long_names(arguments[1:])]
            files = "--config" in arguments  # the reader's
            train = train_with_defaults([] if files else arguments[1:])
            commands["train"] = _later(train, listed=False)
        parse = partial(tyro.extras.subcommand_cli_from_dict, config=(tyro.conf.FlagCreatePairsOff,))
        try:
            parse(commands, args=arguments)
        except SystemExit as error:
            pytest.fail(f"vitport {shlex.join(arguments)}: {error}")


@pytest.mark.parametrize("command", ["inspect a.safetensors --colour red", "train --workdir runs/a --data.colour red"])
def test_a_command_with_an_option_that_is_none_would_be_found(command, tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```sh\nvitport {command}\n```\n")
    with pytest.raises(pytest.fail.Exception, match="colour"):
        test_commands_on_a_page_are_commands_and_take_these_options(page)


@each_page
def test_every_example_has_its_output(page) -> None:
    for example in EXAMPLE.finditer(page.read_text(encoding="utf-8")):
        recorded = example["printed"] if example["session"] is None else example["session"]
        assert any(not line.startswith("$ ") for line in recorded.splitlines()), "run python -m scripts.doc_examples"
    for session in _fences(page, "console"):
        assert session.startswith("$ ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finetune", "pod"])
def test_a_tutorial_prints_what_it_shows(name, tmp_path) -> None:
    """Numbers aside. Two simulated hosts of the pod share a bucket of the tests' server."""
    page = ROOT / "docs" / "tutorials" / f"{name}.md"
    if "coffee.png" in page.read_text(encoding="utf-8") and not (default_cache() / "coffee.png").exists():
        pytest.skip("needs the downloads of vitport demo")
    before, after = (NUMBER.sub("#", text) for text in (page.read_text(encoding="utf-8"), rewritten(page)))
    assert before.splitlines() == after.splitlines()


def test_a_program_without_output_is_no_example() -> None:
    text = "```python\nfragment\n```\n\nwords\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n"
    assert [(found["program"], found["printed"]) for found in EXAMPLE.finditer(text)] == [("print(1)\n", "1\n")]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_a_page_in_the_root_lead_to_files(name) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_links_of_a_page_from_the_root_are_those_of_the_site() -> None:
    text = "[a](docs/testing.md#speed) [b](CHANGELOG.md) [c](LICENSE) [d](#here) [e](https://x.org/docs/y)"
    assert relinked(text, "https://host/r") == (
        "[a](testing.md#speed) [b](changelog.md) [c](https://host/r/blob/main/LICENSE) [d](#here) "
        "[e](https://x.org/docs/y)"
    )


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("PyTorch in float32   9.4e-7  ok", "PyTorch in float32   8.1e-7  ok", True),
        ("sha256 " + "0a" * 32, "sha256 " + "b1" * 32, True),
        ("2:31 left", "0:05 left", True),
        ("verified: every block", "refuted: block", False),
    ],
)
def test_a_check_of_examples_ignores_numbers_alone(before, after, same) -> None:
    assert (NUMBER.sub("#", before) == NUMBER.sub("#", after)) is same


@pytest.mark.parametrize("name", ["vit_jax", "vit_jax.training"])
def test_the_reference_has_the_names_that_are_imported_lazily(name) -> None:
    """Oracle: ``__all__`` at run time, which the reference, made from the sources, cannot see."""
    extensions = griffe.load_extensions(str(ROOT / "scripts" / "docs_lazy_exports.py"))
    package = griffe.load("vit_jax", search_paths=[ROOT], extensions=extensions)
    module = package if name == "vit_jax" else package[name.removeprefix("vit_jax.")]
    assert sorted(map(str, module.exports)) == sorted(importlib.import_module(name).__all__)
