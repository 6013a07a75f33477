"""The allocator's setting, for commands that compute for long."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vit_cli import huge_pages


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What the process would be restarted with."""
    calls: list[tuple] = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.delenv(huge_pages.VARIABLE, raising=False)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    kernel = tmp_path / "enabled"
    kernel.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_KERNEL", kernel)
    return calls


def test_training_starts_anew_with_the_same_words_and_the_setting(started):
    huge_pages.ask_for_huge_pages(["train", "--workdir", "run"])
    ((program, words, environment),) = started
    assert program == sys.executable
    assert words[1:] == sys.orig_argv[1:]
    assert environment == os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@pytest.mark.parametrize("args", [[], ["--help"], ["convert", "train"], ["train", "--help"]])
def test_other_commands_do_not(started, args):
    huge_pages.ask_for_huge_pages(args)
    assert not started


@pytest.mark.parametrize("fact", ["user's own", "kernel without", "no kernel file", "musl", "old glibc", "Windows"])
def test_where_it_cannot_help_or_the_user_decided_nothing_happens(started, monkeypatch, fact):
    if fact == "user's own":
        monkeypatch.setenv(huge_pages.VARIABLE, "glibc.malloc.arena_max=1")
    elif fact == "kernel without":
        huge_pages._KERNEL.write_text("always madvise [never]\n")
    elif fact == "no kernel file":
        huge_pages._KERNEL.unlink()
    elif fact == "musl":
        monkeypatch.setattr(os, "confstr", lambda name: None)
    elif fact == "old glibc":
        monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.34")
    else:
        monkeypatch.delattr(os, "confstr")
    huge_pages.ask_for_huge_pages(["train"])
    assert not started


def test_a_start_that_fails_leaves_everything_as_it_is(started, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(7, "Argument list too long")

    monkeypatch.setattr(os, "execve", fail)
    huge_pages.ask_for_huge_pages(["train"])


def test_a_process_is_started_anew_once_and_keeps_its_number():
    """Twice where the system has huge pages, once where not."""
    code = (
        "import os, sys; print(os.getpid(), os.environ.get('GLIBC_TUNABLES'), flush=True)\n"
        "from vit_cli.huge_pages import ask_for_huge_pages; ask_for_huge_pages(['train'])"
    )
    clean = {name: value for name, value in os.environ.items() if name != huge_pages.VARIABLE}
    said = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True).stdout
    numbers, settings = zip(*(line.split() for line in said.splitlines()), strict=True)
    assert len(set(numbers)) == 1
    assert settings == (("None", huge_pages.SETTING) if huge_pages.huge_pages_offered() else ("None",))
