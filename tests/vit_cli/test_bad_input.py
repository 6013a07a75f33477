"""Every command with every kind of bad input: exit 2, one sentence on stderr, nothing else, nothing left behind."""

from __future__ import annotations

import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file

WEIGHTS: dict[str, Callable[[Path, Path], Path]] = {}
IMAGES: dict[str, Callable[[Path, Path], Path]] = {}


def bad(kinds: dict[str, Callable[[Path, Path], Path]]):
    """``maker(folder, good file) -> path`` under its own name."""
    return lambda maker: kinds.setdefault(maker.__name__, maker)


@bad(WEIGHTS)
@bad(IMAGES)
def missing(folder: Path, _: Path) -> Path:
    return folder / "nowhere.safetensors"


@bad(WEIGHTS)
@bad(IMAGES)
def directory(folder: Path, _: Path) -> Path:
    (folder / "folder").mkdir()
    return folder / "folder"


@bad(WEIGHTS)
@bad(IMAGES)
def empty(folder: Path, _: Path) -> Path:
    (folder / "empty").touch()
    return folder / "empty"


@bad(WEIGHTS)
def truncated_safetensors(folder: Path, good: Path) -> Path:
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:-100])
    return folder / "cut.safetensors"


@bad(WEIGHTS)
def truncated_header(folder: Path, good: Path) -> Path:
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:100])
    return folder / "cut.safetensors"


class Code:
    """Unpickling this creates the file that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@bad(WEIGHTS)
def bare_pickle_with_code(folder: Path, _: Path) -> Path:
    (folder / "evil.pt").write_bytes(pickle.dumps({"head.weight": Code(folder / "PWNED")}))
    return folder / "evil.pt"


@bad(WEIGHTS)
def torch_file_with_code(folder: Path, _: Path) -> Path:
    torch.save({"head.weight": torch.ones(2, 2), "code": Code(folder / "PWNED")}, folder / "evil.pt")
    return folder / "evil.pt"


@bad(WEIGHTS)
def zip_of_something_else(folder: Path, _: Path) -> Path:
    with zipfile.ZipFile(folder / "notes.pt", "w") as archive:
        archive.writestr("notes.txt", "no weights")
    return folder / "notes.pt"


@bad(WEIGHTS)
@bad(IMAGES)
def text(folder: Path, good: Path) -> Path:
    (folder / f"text{good.suffix}").write_text("These are words.\n" * 20)
    return folder / f"text{good.suffix}"


@bad(WEIGHTS)
def weights_of_another_model(folder: Path, good: Path) -> Path:
    tensors = load_file(good)
    save_file({f"layer.{name}": array for name, array in tensors.items()}, folder / "other.safetensors")
    return folder / "other.safetensors"


@bad(WEIGHTS)
def a_tensor_less(folder: Path, good: Path) -> Path:
    tensors = load_file(good)
    del tensors["blocks.1.norm2.bias"]
    save_file(tensors, folder / "less.safetensors")
    return folder / "less.safetensors"


@bad(IMAGES)
def truncated_image(folder: Path, good: Path) -> Path:
    (folder / "cut.png").write_bytes(good.read_bytes()[:1000])
    return folder / "cut.png"


@bad(IMAGES)
def text_named_jpg(folder: Path, _: Path) -> Path:
    (folder / "text.jpg").write_text("These are words.\n" * 20)
    return folder / "text.jpg"


@pytest.mark.parametrize("command", ["inspect", "convert", "compare", "predict"])
@pytest.mark.parametrize("make", WEIGHTS.values(), ids=list(WEIGHTS))
def test_bad_weights_are_refused(make, command, weights, image, tmp_path, refused):
    """The sentence names the file, and code in a pickle does not run: it would leave a file."""
    path = make(tmp_path, weights)
    args = {
        "inspect": (path,),
        "convert": (path, tmp_path / "out.safetensors", "--to", "timm"),
        "compare": (path,),
        "predict": (image, "--weights", path),
    }
    sentence = refused(command, *args[command])
    assert not (tmp_path / "PWNED").exists()
    if make.__name__ not in ("weights_of_another_model", "a_tensor_less"):
        assert str(path) in sentence


def test_the_code_in_the_pickles_would_run(tmp_path):
    """A test of the test: the unsafe way of loading does create the file."""
    for make in (bare_pickle_with_code, torch_file_with_code):
        path = make(tmp_path, tmp_path)
        with path.open("rb") as file:
            if make is torch_file_with_code:
                torch.load(file, weights_only=False)
            else:
                pickle.load(file)  # noqa: S301
        (tmp_path / "PWNED").unlink()


@pytest.mark.parametrize("command", ["compare", "predict"])
@pytest.mark.parametrize("make", IMAGES.values(), ids=list(IMAGES))
def test_bad_images_are_refused(make, command, weights, image, tmp_path, refused):
    """The sentence names the file."""
    path = make(tmp_path, image)
    args = (weights, "--image", path) if command == "compare" else (path, "--weights", weights)
    assert str(path) in refused(command, *args)


@pytest.mark.parametrize("command", ["inspect", "convert", "compare", "predict"])
def test_unknown_model_names_are_refused(command, weights, image, tmp_path, refused):
    """The nearest names are offered."""
    args = {
        "inspect": (weights,),
        "convert": (weights, tmp_path / "out", "--to", "timm"),
        "compare": (weights,),
        "predict": (image, "--weights", weights),
    }
    assert "vit_base_patch16_224" in refused(command, *args[command], "--model", "vit_base_patch16_225")


@pytest.mark.parametrize("command", ["convert", "compare", "predict"])
@pytest.mark.parametrize("size", [("3",), ("12", "3"), ("0",), ("-4",)], ids="x".join)
def test_image_sizes_that_do_not_fit_are_refused(size, command, weights, image, tmp_path, refused):
    """Patches are of 4 pixels."""
    args = {
        "convert": (weights, tmp_path / "out", "--to", "timm"),
        "compare": (weights,),
        "predict": (image, "--weights", weights),
    }
    assert "image_size" in refused(command, *args[command], "--image-size", *size)


def test_unknown_formats_are_refused_with_the_known_ones(weights, tmp_path, refused):
    """To write, and to read."""
    for args in (("--to", "nonsense"), ("--to", "timm", "--from", "nonsense")):
        sentence = refused("convert", weights, tmp_path / "out", *args)
        assert "timm" in sentence
        assert "flax" in sentence


def test_destinations_that_cannot_be_written_are_refused(weights, tmp_path, refused):
    """A folder that does not exist; a file where a folder would have to be; the source itself."""
    source = Path(shutil.copy(weights, tmp_path))
    assert "absent" in refused("convert", source, tmp_path / "absent" / "out", "--to", "timm")
    refused("convert", source, source / "out", "--to", "timm")
    refused("convert", source, source, "--to", "timm")


def test_a_weights_key_that_is_not_there_is_refused_with_those_that_are(tmp_path, weights, refused):
    """A training checkpoint with two sets of weights."""
    tensors = {name: torch.tensor(array) for name, array in load_file(weights).items()}
    torch.save({"model": tensors, "model_ema": tensors}, tmp_path / "training.pt")
    assert "model_ema" in refused("inspect", tmp_path / "training.pt")
    assert "model_ema" in refused("inspect", tmp_path / "training.pt", "--weights-key", "optimizer")
    assert "model_ema" in refused("inspect", weights, "--weights-key", "model_ema")


def test_a_limit_below_zero_and_an_unknown_way_to_run_weights_are_refused(weights, refused):
    """Every difference is above -1, and NaN is above nothing."""
    for limit in ("-1", "nan"):
        assert limit in refused("compare", weights, "--fail-above", limit)
    told = refused("compare", weights, f"tensorflow:{weights}")
    assert "tensorflow:" in told
    assert "transformers:" in told


@pytest.mark.parametrize("output", ["absent/demo.png", "demo.jpg", ".", "folder.png"])
def test_demo_refuses_an_output_that_cannot_be_written_before_it_downloads(output, tmp_path, refused):
    """The sentence names the path; the cache would show a download."""
    (tmp_path / "folder.png").mkdir()
    told = refused("demo", "--output", output, "--cache", tmp_path / "cache")
    assert "--output" in told
    assert output in told
    assert not (tmp_path / "cache").exists()


def test_demo_refuses_a_cache_that_is_a_file(tmp_path, refused):
    """There is no folder to download to."""
    (tmp_path / "file").touch()
    assert "--cache" in refused("demo", "--cache", tmp_path / "file")


def test_demo_without_torch_tells_what_to_install(tmp_path, refused, monkeypatch):
    """Before anything is downloaded."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "vitport[torch]" in refused("demo", "--cache", tmp_path / "cache")
