"""How the command starts, and how it ends when something is wrong."""

from __future__ import annotations

import ast
import importlib.metadata
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vit_cli.main
from vit_spec import VitportError

HEAVY = {
    "numpy", "rich", "PIL", "jax", "flax", "torch", "conversion", "vit_torch", "vit_parity", "onnx",
    "vit_spec.vit.models", "vit_spec.swin.models",
}  # fmt: skip
"""Not vit_jax: the options of `train` are its dataclasses, which import no JAX."""


def test_help_imports_nothing_heavy():
    """A fresh process; sys.modules is the oracle. This is why help takes 0.2 s and not 5."""
    code = "import sys, vit_cli.main\ntry: vit_cli.main.main(['--help'])\nexcept SystemExit: print('\\n', *sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    help_text, _, modules = process.stdout.rpartition("\n ")
    assert not HEAVY & set(modules.split())
    for name in vit_cli.main.SUBCOMMANDS:
        assert re.search(rf"\b{name}\b", help_text)


def test_help_at_80_columns_gives_each_command_one_line(monkeypatch, vitport):
    """Between the frame's top and bottom: "(required)", then the commands in order; no text is cut or wrapped."""
    monkeypatch.setenv("COLUMNS", "80")
    result = vitport("--help")
    assert (result.code, result.err) == (0, "")
    usage, *lines = result.out.splitlines()
    assert usage.startswith("usage: vitport ")  # tyro lists every command there, in 100 columns
    assert max(map(len, lines)) <= 80
    frame = lines[next(at for at, line in enumerate(lines) if "subcommands" in line) + 1 : -1]
    words = [line.strip("│|•* ").split(maxsplit=1) for line in frame]
    at = words.index(["(required)"])
    told = dict(words[at + 1 : at + 1 + len(vit_cli.main.SUBCOMMANDS)])
    assert list(told) == list(vit_cli.main.SUBCOMMANDS)
    for name, text in told.items():
        assert text == (vit_cli.main.SUBCOMMANDS[name].__doc__ or "").splitlines()[0], name


def test_the_help_of_a_command_has_its_whole_docstring(vitport):
    """The list cuts docstrings to their first lines; `vitport rollout --help` has the source in a later one."""
    assert "Abnar & Zuidema 2020" in vitport("rollout", "--help").out
    assert "Abnar & Zuidema 2020" not in vitport("--help").out


def test_version_is_that_of_the_installed_distribution(vitport):
    result = vitport("--version")
    assert (result.code, result.out, result.err) == (0, f"vitport {importlib.metadata.version('vitport')}\n", "")


def processor_time(*command: str) -> float:
    """Of a fresh Python, its own start included, in seconds."""
    before = os.times()
    subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_takes_less_than_300_ms():
    """0.20 s on an idle EPYC; on slower machines less than six times what a few modules of the standard library take,
    measured 4.1. Other work on the machine makes it longer, never shorter, so that one start of twenty is enough."""
    modules = "import asyncio, decimal, email.message, http.client, unittest"
    limit = max(0.3, 6 * min(processor_time("-c", modules) for _ in range(3)))
    took = [math.inf]
    while min(took) >= limit and len(took) <= 20:
        took.append(processor_time("-m", "vit_cli.main", "--help"))
    assert 0 < min(took) < limit, took


@pytest.mark.parametrize("name", vit_cli.main.SUBCOMMANDS)
def test_every_option_of_every_subcommand_is_explained(name, vitport):
    """tyro prints an option without a text of its own as its name and '(default: …)' alone."""
    result = vitport(name, "--help")
    assert result.code == 0
    flat = " ".join(result.out.replace("│", " ").split())
    # Options of nested dataclasses have a dot: test_every_field_of_a_run_is_explained is theirs.
    for option in re.findall(r"(--[a-z][a-z-]*)(?= )[^()]*?\((?:default|required)", flat):
        text = re.search(rf"{option} ([^()]*)\((?:default|required)", flat)
        assert text is not None
        assert len(text[1].split()) >= 3, f"{name} {option}: {text[1]!r}"


def test_every_field_of_a_run_is_explained():
    """tyro takes the string below a field for its help."""
    folder = Path(vit_cli.main.__file__).parents[1] / "vit_jax" / "training"
    fields = []
    for name in ("recipe/config.py", "recipe/recipe.py", "recipe/execution.py", "recipe/data.py"):
        for node in ast.parse((folder / name).read_text()).body:
            if isinstance(node, ast.ClassDef) and node.decorator_list:
                after = [*node.body[1:], None]
                for field, text in zip(node.body, after, strict=True):
                    if isinstance(field, ast.AnnAssign):
                        told = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                        nested = "field(default_factory" in ast.unparse(field)
                        fields.append((f"{node.name}.{ast.unparse(field.target)}", told or nested))
    assert len(fields) > 60
    assert [name for name, told in fields if not told] == []


@pytest.mark.parametrize("args", [[], ["nonsense"], ["predict"], ["convert", "a", "b"], ["models", "--nonsense"]])
def test_mistaken_options_exit_with_two(args, vitport):
    """tyro writes what is wrong."""
    result = vitport(*args)
    assert result.code == 2
    assert result.out == ""
    assert result.err


def test_a_user_s_mistake_is_one_line_even_if_its_message_has_several(monkeypatch, vitport):
    """Messages of libraries, quoted in ours, may have line breaks."""

    def fail(pattern: str = "*") -> None:
        raise VitportError("first line\n  second line")

    monkeypatch.setitem(vit_cli.main.SUBCOMMANDS, "models", fail)
    result = vitport("models")
    assert (result.code, result.out, result.err) == (2, "", "vitport: first line\\n  second line\n")


def test_a_defect_keeps_its_traceback(monkeypatch, vitport):
    """Only VitportError is the user's mistake; a ValueError is ours."""

    def fail(pattern: str = "*") -> None:
        raise ValueError("ours")

    monkeypatch.setitem(vit_cli.main.SUBCOMMANDS, "models", fail)
    with pytest.raises(ValueError, match="ours"):
        vitport("models")


def test_interrupting_ends_with_130():
    """A real SIGINT to a real process, as Ctrl-C sends it; 128 + 2 is the shell's number for it."""
    code = (
        "import sys, time, vit_cli.main as main\n"
        "def wait():\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "main.SUBCOMMANDS['models'] = wait\nsys.exit(main.main(['models']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "vitport: stopped.\n"


def test_a_reader_that_leaves_early_is_no_error():
    """The pipe's reading end is closed before anything is written, as `| head` may do."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "vit_cli.main", "models", "--json"],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert process.stderr == ""
    assert process.returncode == 0
