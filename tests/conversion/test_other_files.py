"""Files that are no weights are called what they are. Oracle: the first bytes that their formats' own pages state."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from safetensors.numpy import save

import conversion
from tests.conversion.bad_files import CONFIG, PARAMS
from tests.conversion.canaries import assert_same_tensors
from vit_cli.main import main

_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 123\n"
FILES = {
    "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(88), "HDF5 file"),
    "vit.gguf": (b"GGUF\x03" + bytes(27), "GGUF file"),
    "vit.tflite": (b"\x1c\0\0\0TFL3" + bytes(24), "TensorFlow Lite"),
    "model.ckpt.index": (bytes(48), "part of a TensorFlow checkpoint"),
    "model.ckpt.data-00000-of-00001": (bytes(48), "part of a TensorFlow checkpoint"),
    **{f"lfs{ending}": (_LFS, "`git lfs pull`") for ending in (".safetensors", ".pth", ".bin", ".onnx", ".npz")},
    **{f"page{ending}": (b"\n<!DOCTYPE html>\n<title>404", "web page") for ending in (".safetensors", ".pth", ".npz")},
    **{f"empty{ending}": (b"", "empty file") for ending in (".safetensors", ".pth", ".npz", ".onnx", ".msgpack")},
}


def refusal(path: Path, capsys) -> str:
    assert main(["inspect", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"vitport: {path} is a")
    return told


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_of_another_kind_is_called_so(name, tmp_path, capsys) -> None:
    content, said = FILES[name]
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name, capsys)


def test_an_archive_of_keras_and_folders_without_weights_are_called_so(tmp_path, capsys) -> None:
    with zipfile.ZipFile(tmp_path / "vit.keras", "w") as archive:
        for member in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(member, "{}")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
    (tmp_path / "nothing").mkdir()
    for name, said in {"vit.keras": "Keras", "saved": "SavedModel", "nothing": "empty folder"}.items():
        assert said in refusal(tmp_path / name, capsys)


@pytest.mark.parametrize("beginning", [b"\x1f\x8b", b"<!"])
def test_weights_whose_length_begins_like_another_kind_are_read(beginning, tmp_path) -> None:
    data = save(PARAMS)
    length = int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": {"padding": ""}} | json.loads(data[8 : 8 + length]))
    wanted = int.from_bytes(beginning, "little") + (len(header) // 65536) * 65536
    padded = header.replace('"padding": ""', f'"padding": "{"." * (wanted - len(header))}"').encode()
    path = tmp_path / "weights"
    path.write_bytes(len(padded).to_bytes(8, "little") + padded + data[8 + length :])
    assert path.read_bytes().startswith(beginning)
    assert_same_tensors(conversion.load(path, model=CONFIG).params, PARAMS)
