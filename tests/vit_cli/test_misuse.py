"""Command lines that are wrong in one way: status 2, one plain sentence, nothing written. Oracle: the rule itself."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.numpy import load_file, save_file

from vit_cli.main import main

LONG = "n" * 300


@pytest.fixture
def here(weights, image, tmp_path) -> Path:
    """A user's folder, in which the command runs."""
    shutil.copy(weights, tmp_path / "w.safetensors")
    shutil.copy(image, tmp_path / "i.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "thesis.txt").write_text("ten years")
    (tmp_path / "deep.json").write_text("[" * 5000 + "]" * 5000)
    (tmp_path / "huge.json").write_text('{"embed_dim": 1' + "0" * 400 + "}")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


CONVERT = ("convert", "w.safetensors", "out", "--to", "timm")
COMPARE = ("compare", "torch:w.safetensors", "jax:w.safetensors")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ((*CONVERT, "--image-size", "100000000"), "image_size=100000000 is too large"),
        ((*CONVERT, "--classes", "99999999999999", "--head", "zero"), "num_classes=99999999999999 is too large"),
        ((*CONVERT, "--config", "pipe"), "pipe is not a regular file"),
        ((*CONVERT, "--config", "folder"), "folder is not a regular file"),
        ((*CONVERT, "--config", "deep.json"), "deep.json cannot be read as JSON"),
        ((*CONVERT, "--config", "huge.json"), "contradicts the file"),
        ((*CONVERT, "--rename", "pipe"), "pipe is not a regular file"),
        ((*CONVERT, "--rename", "/dev/zero"), "/dev/zero is not a regular file"),
        ((*CONVERT, "--verify", "--certificate", "thesis.txt"), "must end in .json"),
        ((*COMPARE, "--report", "thesis.txt"), "must end in .html"),
        (("rollout", "i.png", "thesis.txt", "--weights", "w.safetensors"), "must end in .png"),
        ((*COMPARE, "--seed", "-1"), "seed must be 0 or more; got -1"),
        (("sweep", "w.safetensors", "--seed", "-1"), "seed must be 0 or more; got -1"),
        (("steps", "w.safetensors", "--seed", "-1"), "seed must be 0 or more; got -1"),
        (("steps", "w.safetensors", "--fail-above", "nan"), "--fail-above must be a relative difference"),
        (("inspect", LONG), LONG[:50]),
        (("inspect", "\udcff"), "\\udcff"),
        (("train", "--workdir", "run", "--config", "deep.json"), "too deeply"),
    ],
)
def test_a_command_line_that_is_wrong_in_one_way(command, words, here, refused) -> None:
    assert words in refused(*command)


def test_a_module_of_the_users_own_that_ends_the_program_ends_only_itself(here, refused, monkeypatch) -> None:
    """Else the command would end with the module's status, 0 perhaps, and nothing verified."""
    module = ModuleType("ends_it")
    module.load = lambda: sys.exit(0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ends_it", module)
    monkeypatch.chdir(here)
    assert main([*CONVERT, "--verify", "--against", "ends_it:load"]) == 2


def test_of_two_files_the_one_that_says_too_little_is_named(here, refused) -> None:
    tensors = load_file(here / "w.safetensors")
    save_file(tensors, here / "bare.safetensors")
    told = refused("compare", "w.safetensors", "jax:bare.safetensors")
    assert told.startswith("vitport: bare.safetensors: The file does not say its num_heads")


def test_a_lack_of_memory_is_one_sentence(here, refused, monkeypatch) -> None:
    def lack(*_: object, **options: object) -> None:
        raise MemoryError("Unable to allocate 3 TiB")

    monkeypatch.setattr("conversion.load_sized.load", lack)
    assert "more memory than there is (Unable to allocate 3 TiB)" in refused("inspect", "w.safetensors")


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--workdir", "az://container/run", "--preset", "digits"),
        ("train", "--workdir=hdfs://host/run", "--preset", "digits"),
        ("train", "--workdir", "run", "--preset", "digits", "--data.labels", "az://bucket/train.csv"),
        ("train", "--workdir", "run", "--preset", "digits", "--data.cache", "gs://bucket/cache"),
        ("train", "--workdir", "run", "--weights", "https://host/w.safetensors", "--data", "digits"),
        ("convert", "az://container/w.safetensors", "out.safetensors", "--to", "timm"),
        ("evaluate", "w.safetensors", "--data", "digits", "--predictions", "https://host/out.csv"),
        ("convert", "w.safetensors", "out", "--to", "timm", "--verify", "--certificate", "az://bucket/proof.json"),
    ],
)
def test_an_object_store_is_one_sentence_and_leaves_no_folder(arguments, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(list(arguments)) == 2
    told = capsys.readouterr().err
    assert "is not on this machine, and vitport reads and writes paths of this machine" in told
    assert len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
