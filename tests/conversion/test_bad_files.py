"""Damaged files of every container. Oracle: the tensors of the good file, and the contract of the command.

Whatever the bytes are, the command exits with 2 and one sentence, or has read weights of the right names and shapes; a
file that is cut short is never read as anything but what it was.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import conversion
from tests.conversion.bad_files import CONFIG, MAKERS, PARAMS, cuts, files_of, flips, removals
from tests.conversion.canaries import assert_same_tensors
from vit_spec import VitportError

SHAPES = {name: array.shape for name, array in PARAMS.items()}
CHECKED = {"a.npz", "deflated.npz"}
"""Containers with a checksum for every tensor: whatever is read of them is right."""


@pytest.fixture(scope="module", params=MAKERS)
def good(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / request.param
    MAKERS[request.param](path)
    return path


def read(path: Path) -> dict:
    """Every tensor; :class:`VitportError` is the only error that may come out."""
    checkpoint = conversion.load(path, model=CONFIG)
    return {name: checkpoint.params[name] for name in checkpoint.params}


def attempt(path: Path) -> dict | None:
    """The tensors, or ``None`` after one sentence."""
    try:
        return read(path)
    except VitportError as error:
        assert "\n" not in str(error)
        assert str(error).endswith(".")
        return None


def test_the_good_file_is_read_bit_for_bit(good) -> None:
    """A test of the tests below."""
    assert_same_tensors(read(good), PARAMS)


def test_a_file_cut_anywhere_is_refused_or_read_as_it_was(good, tmp_path) -> None:
    """A folder's file that is not needed, such as orbax's statistics, may be cut; so may a graph after its weights."""
    path = tmp_path / good.name
    (shutil.copytree if good.is_dir() else shutil.copy)(good, path)
    refused = 0
    for file in files_of(path):
        whole = file.read_bytes()
        for content in cuts(whole, 30 if path.is_file() else 6):
            file.write_bytes(content)
            tensors = attempt(path)
            refused += tensors is None
            if tensors is not None:
                assert_same_tensors(tensors, PARAMS)
        file.write_bytes(whole)
    assert refused > 10


@pytest.mark.parametrize("damage", [flips, removals])
def test_damaged_bytes_are_refused_or_weights_of_the_right_shapes(good, tmp_path, damage) -> None:
    """Where the container has checksums, they are the right weights too."""
    rng = random.Random(0)
    path = tmp_path / good.name
    (shutil.copytree if good.is_dir() else shutil.copy)(good, path)
    files = files_of(path)
    refused = 0
    for file in files:
        whole = file.read_bytes()
        for content in damage(whole, 90 // len(files) + 6, rng):
            file.write_bytes(content)
            tensors = attempt(path)
            refused += tensors is None
            if tensors is not None:
                assert {name: array.shape for name, array in tensors.items()} == SHAPES
                if good.name in CHECKED:
                    assert_same_tensors(tensors, PARAMS)
        file.write_bytes(whole)
    assert refused


FOLDERS = {
    "orbax": {"_METADATA", "manifest.ocdbt"},
    "huggingface": {"model.safetensors", "config.json"},
    "sharded": {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "config.json",
        "model.safetensors.index.json",
    },
}
"""Format that is a folder → files that it cannot be read without."""


@pytest.mark.parametrize("good", FOLDERS, indirect=True)
def test_a_missing_file_of_a_folder_is_refused_or_not_needed(good, tmp_path) -> None:
    refused: set[str] = set()
    for at, file in enumerate(files_of(good)):
        path = tmp_path / str(at)
        shutil.copytree(good, path)
        (path / file.relative_to(good)).unlink()
        tensors = attempt(path)
        if tensors is None:
            refused.add(file.name)
        else:
            assert_same_tensors(tensors, PARAMS)
    assert FOLDERS[good.name] <= refused


def test_every_format_that_is_a_folder_has_its_files_taken_away(good) -> None:
    assert good.is_dir() == (good.name in FOLDERS)


def cut_the_largest_needed_file(path: Path) -> None:
    """Leave 60 % of it. A file that reading does not need, such as one of orbax's several data files, stays whole."""
    for file in sorted(files_of(path), key=lambda file: file.stat().st_size, reverse=True):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(len(whole) * 0.6)])
        if attempt(path) is None:
            return
        file.write_bytes(whole)
    pytest.fail(f"no file of {path.name} is needed")


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_the_command_refuses_a_cut_file_in_one_line_and_writes_nothing(good, command, tmp_path, capfd) -> None:
    """On the real stderr, threads included: exit 2, no traceback, the old destination as it was, nothing beside it."""
    from vit_cli.main import main

    path, destination = tmp_path / good.name, tmp_path / "out.safetensors"
    (shutil.copytree if good.is_dir() else shutil.copy)(good, path)
    cut_the_largest_needed_file(path)
    facts = tmp_path / "facts.json"
    facts.write_text(CONFIG.to_json())  # the true ones: a name that contradicts the tensors would be refused first
    old = safetensors.numpy.save({"old": np.ones(3, np.float32)})
    destination.write_bytes(old)
    before = sorted(tmp_path.rglob("*"))
    more = [str(destination), "--to", "timm", "--overwrite"] if command == "convert" else []
    assert main([command, str(path), *more, "--config", str(facts)]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"vitport: {path}")
    assert destination.read_bytes() == old
    assert sorted(tmp_path.rglob("*")) == before
