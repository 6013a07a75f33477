"""Files that are well formed and yet no model's: odd ranks, records, entries of a folder. Oracle: one sentence."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
import torch
from safetensors.numpy import save_file

import conversion
from conversion.containers.zarr_metadata import check_zarr
from tests.conversion.bad_files import CONFIG, MAKERS, PARAMS, STATE
from tests.conversion.canaries import assert_same_tensors
from vit_cli.main import main
from vit_spec import ViTConfig, VitportError


def refused(path: Path, words: str, model: ViTConfig | None = CONFIG) -> None:
    with pytest.raises(VitportError, match=words) as caught:
        checkpoint = conversion.load(path, model=model)
        _ = [checkpoint.params[name] for name in checkpoint.params]
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [*PARAMS, "reg_token", "pre_logits.fc.weight", "fc_norm.weight"])
def test_a_tensor_without_axes_is_one_sentence(name, tmp_path, capsys) -> None:
    save_file({**PARAMS, name: np.zeros((), np.float32)}, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", name)
    assert main(["inspect", str(tmp_path / "w.safetensors"), "--model", "vit_tiny_patch16_224"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("shape", [(0, 0, 0, 0), (1, 1, 1, 1, 1), (24, 0), (0,), (1 << 20, 0), (3, 3)])
@pytest.mark.parametrize("name", ["patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "head.weight"])
def test_shapes_of_no_model_are_one_sentence(name, shape, tmp_path) -> None:
    save_file({**PARAMS, name: np.zeros(shape, np.float32)}, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", ".")


@pytest.mark.parametrize("metadata", [
    None, {}, {"vitport": "{}"}, {"vitport": "null"}, {"vitport": "[" * 900 + "]" * 900},
    {"vitport": json.dumps({"config": {"family": "vit", "depth": 10**30}})},
    {"vitport": json.dumps({"config": {}, "preprocessing": [], "source": 3})},
])  # fmt: skip
def test_metadata_that_says_nothing_or_nonsense(metadata, tmp_path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(PARAMS, path)
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    text = json.dumps({"__metadata__": metadata} | json.loads(data[8 : 8 + length])).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    if metadata in (None, {}):
        assert_same_tensors(conversion.load(path, model=CONFIG).params, PARAMS)
    else:
        refused(path, "w.safetensors|record")


@pytest.mark.parametrize("odd", ["sparse", "csr", "meta"])
def test_tensors_that_are_not_plain_are_refused_by_name(odd, tmp_path) -> None:
    eye = torch.eye(3)
    tensors = {"sparse": eye.to_sparse(), "csr": eye.to_sparse_csr(), "meta": torch.zeros(3, device="meta")}
    torch.save(STATE | {"mask": tensors[odd]}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "w.pth holds mask as a .* tensor")
    torch.save({"model": STATE, "mask": tensors[odd]}, tmp_path / "w.pth")  # beside the weights, not among them
    assert_same_tensors(conversion.load(tmp_path / "w.pth", model=CONFIG).params, PARAMS)


@pytest.mark.parametrize("kind", ["pipe", "zero", "outside", "circle"])
@pytest.mark.parametrize("name", ["a chunk", "_METADATA", "manifest.ocdbt"])
def test_an_entry_of_a_checkpoint_that_is_no_file_is_refused_at_once(kind, name, tmp_path) -> None:
    folder = tmp_path / "w"
    layout = {"use_ocdbt": name != "a chunk"}
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**layout)).save(folder, {"a": {"kernel": np.ones((3, 4))}})
    file = folder / "a.kernel" / "0.0" if name == "a chunk" else folder / name
    (tmp_path / "away").write_bytes(file.read_bytes())
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to({"zero": "/dev/zero", "outside": tmp_path / "away", "circle": file}[kind])
    refused(folder, "neither a file|outside|neither config.json")


@pytest.mark.parametrize("kind", ["pipe", "zero", "outside"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_an_entry_of_a_huggingface_folder_that_is_no_file_is_refused_or_not_read(kind, name, tmp_path) -> None:
    MAKERS["huggingface"](tmp_path / "hf")
    file = tmp_path / "hf" / name
    (tmp_path / "away").write_bytes(file.read_bytes())
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero" if kind == "zero" else tmp_path / "away")
    if name == "preprocessor_config.json" and kind == "pipe":
        assert conversion.load(tmp_path / "hf").config.depth == 2  # as if it were not there
    else:
        refused(tmp_path / "hf", "outside|neither|no model.safetensors", model=None)


def test_the_links_of_the_hubs_cache_are_read(tmp_path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    MAKERS["huggingface"](snapshot)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    for at, file in enumerate(list(snapshot.iterdir())):
        file.rename(tmp_path / "models--a--b" / "blobs" / str(at))
        file.symlink_to(Path("../../blobs") / str(at))
    assert_same_tensors(conversion.load(snapshot).params, PARAMS)


@pytest.mark.parametrize("name", ["²", "5²", "٣", "9" * 400, "-1", "", "5.tmp"])
def test_names_of_checkpoints_that_are_no_numbers_are_passed_over(name, tmp_path) -> None:
    (tmp_path / "w" / "checkpoints").mkdir(parents=True)
    if name and len(name) < 255:
        (tmp_path / "w" / "checkpoints" / name).mkdir()
    refused(tmp_path / "w", "without a checkpoint")


ZARR = {
    "zarr_format": 2, "shape": [48], "chunks": [48], "dtype": "<f4", "compressor": None, "filters": None, "order": "C",
    "fill_value": None,
}  # fmt: skip
ZARR3 = {
    "zarr_format": 3, "node_type": "array", "shape": [48], "data_type": "float32", "fill_value": 0,
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [48]}},
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}  # fmt: skip


@pytest.mark.parametrize("whole", [ZARR, ZARR3], ids=["2", "3"])
@pytest.mark.parametrize("change", [
    {"shape": [-1]}, {"shape": [2**62]}, {"shape": [48, 48]}, {"shape": 48}, {"shape": [True]}, {"shape": [1.5]},
    {"chunks": [0], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0]}}},
    {"chunks": [2**40], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**40]}}},
    {"dtype": "O", "data_type": "string"}, {"dtype": "|V4", "data_type": None}, {"zarr_format": 4},
    {"fill_value": 10**30}, {"compressor": {"id": "nonsense"}, "codecs": [{"name": "nonsense"}]},
    {"shape": [2**30], "chunks": [1], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}}},
    {"attributes": json.loads("[" * 20 + "]" * 20)}, {"order": "X", "node_type": "group"}, {"shape": [1] * 40},
    {"filters": [{"id": "delta"}], "codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [0]}}]},
])  # fmt: skip
def test_what_zarr_may_not_say_of_itself(whole, change) -> None:
    """Some of these make TensorStore abort the process."""
    check_zarr("a", json.dumps(whole).encode(), 200)
    with pytest.raises((ValueError, KeyError)):
        check_zarr("a", json.dumps(whole | change).encode(), 200)


def test_thousands_of_surplus_names_take_seconds_and_one_line(tmp_path) -> None:
    """Finding the nearest known name of every one would take an hour."""
    empty = np.zeros((), np.float32)
    save_file(PARAMS | {f"surplus.{at}.weight" + "x" * 50: empty for at in range(5000)}, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", "5000 tensors do not fit")


def test_json_beyond_any_models_is_not_parsed(tmp_path) -> None:
    MAKERS["huggingface"](tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text('{"a": [' + "[]," * (6 << 20) + "[]]}")
    refused(tmp_path / "hf", "config.json has 18,874,379 bytes, and at most 16,777,216 are read", model=None)
    with (tmp_path / "w.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 90 << 20) + b"{")
        file.truncate(100 << 20)
    refused(tmp_path / "w.safetensors", "header says it has")


def test_links_in_a_circle_between_steps_are_not_followed(tmp_path) -> None:
    """Two links to the folder itself are 2^40 ways to go round in it."""
    for name in ("1", "2", "state"):
        (tmp_path / name).symlink_to(".")
    refused(tmp_path, "neither config.json")


def test_folders_in_folders_end_somewhere(tmp_path) -> None:
    deep = tmp_path / "w"
    (deep / "/".join(["1"] * 600)).mkdir(parents=True)
    refused(deep, "w")


def test_dicts_that_are_shared_many_times_over_are_not_all_gone_through(tmp_path) -> None:
    """Twelve names for one dict, seven times over, are 36 million ways to it in 2 kB."""
    content: dict = {"x": 1}
    for _ in range(7):
        content = {str(at): content for at in range(12)}
    torch.save(content, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "in more than 100000 ways")


def test_millions_of_values_that_are_no_arrays_are_not_walked(tmp_path) -> None:
    (tmp_path / "w.msgpack").write_bytes(b"\x81\xa1a\xdd\x00\xff\xff\xff" + b"\xc0" * 0xFFFFFF)
    refused(tmp_path / "w.msgpack", "more than 500000 values")
