"""Nothing is destroyed that this project did not write. Oracle: the tree before and after, byte for byte."""

from __future__ import annotations

import os
import socket
import string
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conversion
from conversion.destination import writable_file
from conversion.format import FolderWriter
from conversion.formats import FORMATS
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_checkpoint
from tests.conversion.test_roundtrips import FLAVOURS, params_for
from vit_spec import VitportError

CONFIG = ASYMMETRIC.replace(representation_size=None, depth=1)
CHECKPOINT = canary_checkpoint(CONFIG)
FLAVOURED = [CONFIG.replace(**{"image_size": 12, "mlp_hidden_dim": 48} | flavour) for flavour in FLAVOURS.values()]
FORMAT_OF = {"file": "timm", "folder": "flax"}


def tree(root: Path) -> dict[str, object]:
    """Every path below with its content, a link's target, or its kind."""
    return {str(path.relative_to(root)): _content(path) for path in sorted(root.rglob("*"))}


def _content(path: Path) -> object:
    if path.is_symlink():
        return ("link", path.readlink())
    return path.read_bytes() if path.is_file() else path.stat().st_mode


def _stranger(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("ten years")


def _empty_stranger(path: Path) -> None:
    (path / "photos").mkdir(parents=True)


def _text(path: Path) -> None:
    path.write_text("ten years")


def _empty(path: Path) -> None:
    path.touch()


def _pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x04N.")


def _document(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", "<w/>")


def _ours_and_more(path: Path) -> None:
    conversion.save(CHECKPOINT, path, format="flax")
    (path / "params" / "notes.md").write_text("which data")


def _ours_with_a_link(path: Path) -> None:
    conversion.save(CHECKPOINT, path, format="flax")
    (path / "vitport.json").rename(path.parent / "elsewhere.json")
    (path / "vitport.json").symlink_to(path.parent / "elsewhere.json")


def _ours_with_a_linked_folder(path: Path) -> None:
    conversion.save(CHECKPOINT, path, format="flax")
    (path / "params").rename(path.parent / "elsewhere")
    (path / "params").symlink_to(path.parent / "elsewhere")


def _link_to_stranger(path: Path) -> None:
    _stranger(path.parent / "real")
    path.symlink_to("real")


def _link_to_text(path: Path) -> None:
    _text(path.parent / "real")
    path.symlink_to("real")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _link_to_device(path: Path) -> None:
    path.symlink_to(os.devnull)


def _link_to_nowhere(path: Path) -> None:
    path.symlink_to("no/such/folder/file")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def _pipe_in_ours(path: Path) -> None:
    conversion.save(CHECKPOINT, path, format="flax")
    os.mkfifo(path / "params" / "_sharding")


def _cut_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thesis.txt", "ten years" * 100)
    path.write_bytes(path.read_bytes()[:-30])


def _array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


STRANGE: list[Callable[[Path], None]] = [
    _stranger, _empty_stranger, _text, _empty, _pickle, _document, _ours_and_more, _ours_with_a_link,
    _ours_with_a_linked_folder, _link_to_stranger, _link_to_text, _link_to_itself, _link_to_device, _link_to_nowhere,
    _pipe, _socket, _pipe_in_ours, _cut_archive, _array,
]  # fmt: skip


@pytest.mark.parametrize("format", FORMAT_OF.values(), ids=FORMAT_OF)
@pytest.mark.parametrize("make", STRANGE, ids=lambda make: make.__name__.strip("_"))
def test_what_is_not_ours_stays_as_it_is(make, format, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(VitportError) as refused:
        conversion.save(CHECKPOINT, tmp_path / "out", format=format, overwrite=True)
    assert "\n" not in str(refused.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth", "msgpack", "onnx"])
def test_a_name_alone_makes_no_file_of_weights(ending, tmp_path) -> None:
    (tmp_path / f"thesis.{ending}").write_text("ten years")
    with pytest.raises(VitportError, match="is not a file of weights, so it is not replaced"):
        conversion.save(CHECKPOINT, tmp_path / f"thesis.{ending}", format="timm", overwrite=True)
    assert (tmp_path / f"thesis.{ending}").read_text() == "ten years"


@pytest.mark.parametrize("format", ["timm", "google", "google-linen", "torchvision"])
def test_a_file_of_weights_of_which_half_is_left_is_replaced(format, tmp_path) -> None:
    """As a download that was interrupted."""
    config = FLAVOURED[0].replace(activation="gelu_tanh" if "google" in format else "gelu")
    conversion.save(canary_checkpoint(config), tmp_path / "w", format=format)
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:3000])
    conversion.save(CHECKPOINT, tmp_path / "w", format="timm", overwrite=True)
    assert conversion.load(tmp_path / "w").config == CHECKPOINT.config


@pytest.mark.parametrize("format", FORMAT_OF.values(), ids=FORMAT_OF)
@pytest.mark.parametrize("name", ["", ".", "..", "../..", "/", "n" * 256, "é" * 128, "a\0b", "no/out", os.devnull])
def test_a_name_that_cannot_be_written_is_one_sentence(name, format, tmp_path, monkeypatch) -> None:
    (tmp_path / "in" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in" / "here")
    before = tree(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(VitportError) as refused:
            conversion.save(CHECKPOINT, name, format=format, overwrite=overwrite)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 400
    assert tree(tmp_path) == before


@pytest.mark.parametrize("format", FORMAT_OF.values(), ids=FORMAT_OF)
def test_the_longest_name_is_written(format, tmp_path) -> None:
    path = tmp_path / ("é" * 127)  # 254 of 255 bytes
    conversion.save(CHECKPOINT, path, format=format)
    conversion.save(CHECKPOINT, path, format=format, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]


def test_a_read_only_parent_is_one_sentence(tmp_path, monkeypatch) -> None:
    """``os.access`` answers for root as it would for another user."""
    true = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and true(path, mode))
    with pytest.raises(VitportError, match="is read-only; choose a folder with write access"):
        conversion.save(CHECKPOINT, tmp_path / "out", format="timm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMAT_OF.values(), ids=FORMAT_OF)
@pytest.mark.parametrize("is_there", [True, False], ids=["target", "dangling"])
def test_a_link_stays_a_link(is_there, format, tmp_path) -> None:
    (tmp_path / "away").mkdir()
    real, link = tmp_path / "away" / "real", tmp_path / "link"
    if is_there:
        conversion.save(canary_checkpoint(CONFIG.replace(depth=2)), real, format=format)
    link.symlink_to("away/real")
    conversion.save(CHECKPOINT, link, format=format, overwrite=True)
    assert link.readlink() == Path("away/real")
    assert_same_tensors(conversion.load(real).params, CHECKPOINT.params)
    assert sorted(path.name for path in tmp_path.glob("**/*") if path.parent in (tmp_path, tmp_path / "away")) == [
        "away",
        "link",
        "real",
    ]


@pytest.mark.parametrize(
    "name", [name for name, it in FORMATS.items() if isinstance(it.writer, FolderWriter) and it.family == "vit"]
)
def test_folders_that_a_format_writes_are_its_own(name, tmp_path, monkeypatch) -> None:
    """The declared names cover what the writer writes, whole and in shards, and no other file."""
    config = next(it for it in FLAVOURED if not FORMATS[name].cannot_hold(it))
    checkpoint = conversion.Checkpoint.of(config, params_for(config, np.dtype(np.float32)))
    for limit in (10**9, 1000):
        monkeypatch.setattr("conversion.containers.huggingface_folder.MAX_SHARD_BYTES", limit)
        for _ in range(2):
            conversion.save(checkpoint, tmp_path / "out", format=name, overwrite=True, activation="keep")
    (tmp_path / "out" / "README.md").write_text("mine")
    with pytest.raises(VitportError, match=r"holds 'README\.md', which .* does not write"):
        conversion.save(checkpoint, tmp_path / "out", format=name, overwrite=True, activation="keep")


def test_a_file_of_weights_is_replaced_by_a_folder_but_no_folder_by_a_file(tmp_path) -> None:
    conversion.save(CHECKPOINT, tmp_path / "out", format="timm")
    conversion.save(CHECKPOINT, tmp_path / "out", format="flax", overwrite=True)
    assert (tmp_path / "out" / "vitport.json").is_file()
    with pytest.raises(VitportError, match="is a folder, and timm writes a file"):
        conversion.save(CHECKPOINT, tmp_path / "out", format="timm", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("source", ["out", "out/in.safetensors"])
def test_a_source_is_never_replaced(source, tmp_path) -> None:
    (tmp_path / source).parent.mkdir(exist_ok=True)
    conversion.save(CHECKPOINT, tmp_path / source, format="timm")
    before = tree(tmp_path)
    for go in (
        lambda: conversion.convert(tmp_path / source, tmp_path / "out", to="flax", overwrite=True),
        lambda: conversion.save(conversion.load(tmp_path / source), tmp_path / "out", format="flax", overwrite=True),
    ):
        with pytest.raises(VitportError, match=r"source.* would be replaced"):
            go()
    assert tree(tmp_path) == before


def test_a_new_file_inside_the_source_folder_is_written_and_no_file_of_it_replaced(tmp_path) -> None:
    conversion.save(CHECKPOINT, tmp_path / "in", format="flax")
    before = tree(tmp_path)
    conversion.convert(tmp_path / "in", tmp_path / "in" / "new.safetensors", to="timm")
    assert {name: value for name, value in tree(tmp_path).items() if name != "in/new.safetensors"} == before
    with pytest.raises(VitportError):
        conversion.convert(tmp_path / "in", tmp_path / "in" / "params", to="flax", overwrite=True)


NAMES = st.text(string.ascii_lowercase + "._-0", min_size=1, max_size=12).filter(lambda name: name.strip("."))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=4))
def test_any_folder_of_other_names_survives(tmp_path_factory, places) -> None:
    root = tmp_path_factory.mktemp("any")
    for parts in places:
        path = root / "out" / Path(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("mine")
        except OSError:
            continue  # another place made a file of its folder, or a folder of it
    before = tree(root)
    for name in ("timm", "flax", "huggingface"):
        with pytest.raises(VitportError):
            conversion.save(CHECKPOINT, root / "out", format=name, overwrite=True, activation="keep")
    assert tree(root) == before


def test_a_report_goes_to_a_file_alone(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path(os.devnull), tmp_path / "no" / "file", Path("n" * 300)):
        with pytest.raises(VitportError, match="cannot be written"):
            writable_file(path)
    (tmp_path / "old.html").write_text("older")
    (tmp_path / "link.html").symlink_to("old.html")
    assert writable_file(tmp_path / "link.html") == (tmp_path / "old.html").resolve()
    assert writable_file(tmp_path / "new.html") == (tmp_path / "new.html").resolve()


@pytest.mark.parametrize(
    ("name", "format", "written"),
    [
        ("w.pth", "timm", "a file that ends in .safetensors"),
        ("w.SAFETENSORS", "google", "a file that ends in .npz"),
        ("w.npz", "torchvision", "a file that ends in .pt or .pth"),
        ("w.msgpack", "flax", "a folder"),
        ("w.onnx", "huggingface", "a folder"),
        ("w.h5", "google-linen", "a file that ends in .msgpack"),
    ],
)
def test_a_name_of_another_kind_of_file_is_refused(name, format, written, tmp_path) -> None:
    with pytest.raises(VitportError, match=f"ends in {Path(name).suffix.lower()}, but {format} writes {written}:"):
        conversion.save(CHECKPOINT, tmp_path / name, format=format, activation="keep")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["w", "vit.tiny", "w.safetensors", "w.v2"])
def test_other_names_are_as_the_user_wants_them(name, tmp_path) -> None:
    conversion.save(CHECKPOINT, tmp_path / name, format="timm", activation="keep")
    assert_same_tensors(conversion.load(tmp_path / name).params, CHECKPOINT.params)
