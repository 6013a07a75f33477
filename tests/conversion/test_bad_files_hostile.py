"""Files that were made to harm: bombs, code, lies, paths out of the folder. Oracle: the attack works elsewhere."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import onnx
import pytest
import safetensors
import torch
from safetensors.numpy import save_file

import conversion
from conversion.containers import open_source
from conversion.tensors.finite import count_not_finite
from tests.conversion.bad_files import CONFIG, MAKERS, MODEL, PARAMS, STATE, files_of, graph
from tests.conversion.canaries import assert_same_tensors
from vit_cli.main import main
from vit_spec import VitportError

GIGABYTES = 4 << 30


@pytest.fixture
def folder(tmp_path) -> Path:
    """A Hugging Face folder."""
    MAKERS["huggingface"](tmp_path / "hf")
    return tmp_path / "hf"


MEASURE = """
import json, resource, sys, flax.serialization, onnx, orbax.checkpoint, tensorstore, torch, conversion
from tests.peak_memory import start, taken
from vit_spec import VitportError
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # should the test fail, the machine need not
results = []
for path in sys.argv[1:]:
    before, sentence = start(), ""
    try:
        checkpoint = conversion.load(path, model="vit_tiny_patch16_224")
        [array.sum() for array in checkpoint.params.values()]
    except VitportError as error:
        sentence = str(error)
    results.append((path, sentence, taken(before)))
json.dump(results, sys.stdout)
"""
"""What refuses each file, and by how many bytes the process that reads it grows."""


def bomb_npz(path: Path) -> None:
    """Zeros, which deflate shrinks to a thousandth."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("cls.npy", "w") as member:
        np.lib.format.write_array_header_1_0(
            member, {"descr": "<f4", "fortran_order": False, "shape": (1, 1, 150 << 18)}
        )
        for _ in range(150):
            member.write(bytes(1 << 20))
    with path.open("r+b") as file:  # and 4 GB are claimed where the directory tells of 150 MB
        content = file.read()
        whole = struct.pack("<I", (150 << 20) + 128)
        assert content.count(whole)
        file.seek(0)
        file.write(content.replace(whole, struct.pack("<I", GIGABYTES - 1)))


def bomb_strides(path: Path) -> None:
    """One number, seen through strides of zero as many."""
    torch.save(STATE | {"pos_embed": torch.zeros(1).expand(1, GIGABYTES // 96, 24)}, path)


def bomb_strides_legacy(path: Path) -> None:
    state = STATE | {"pos_embed": torch.zeros(1).expand(1, GIGABYTES // 96, 24)}
    torch.save(state, path, _use_new_zipfile_serialization=False)


def bomb_zip(path: Path) -> None:
    """A record of zeros that deflate shrank."""
    torch.save({"cls_token": torch.zeros(GIGABYTES // 400)}, path)
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        archive.writestr("archive/data/9", bytes(400 << 20))


def bomb_onnx(path: Path) -> None:
    """A shape without numbers."""
    model = graph(PARAMS)
    weight = model.graph.initializer.add()
    weight.name, weight.data_type = "extra", onnx.TensorProto.FLOAT
    weight.dims.extend([GIGABYTES // 4])
    onnx.save(model, path)


def bomb_msgpack(path: Path) -> None:
    """A map that claims four thousand million entries."""
    path.write_bytes(b"\xdf\xff\xff\xff\xff\xa1a\xc6\xff\xff\xff\xff")


def bomb_orbax(path: Path) -> None:
    """An array of which nothing is stored but its shape."""
    import orbax.checkpoint as ocp
    import tensorstore as ts

    ocp.PyTreeCheckpointer().save(path.resolve(), {"blocks": {"0": {"attn": {"qkv": {"kernel": np.zeros((1, 72))}}}}})
    place = {"driver": "ocdbt", "base": path.as_uri(), "path": "blocks.0.attn.qkv.kernel/"}
    shape = [24, GIGABYTES // 96]
    metadata = {"shape": shape, "chunks": [24, 1 << 20], "dtype": "<f4"}
    ts.open({"driver": "zarr", "kvstore": place, "metadata": metadata}, create=True, delete_existing=True).result()


def bomb_ocdbt(path: Path) -> None:
    """A database that holds zeros within a node, which zstd packs into 10 kB; TensorStore would take 600 MB."""
    import orbax.checkpoint as ocp
    import tensorstore as ts

    ocp.PyTreeCheckpointer().save(path.resolve(), {"norm": {"scale": np.ones(24, np.float32)}})
    config = {"max_inline_value_bytes": 1 << 20, "max_decoded_node_bytes": (1 << 32) - 1}
    for file in (path / "manifest.ocdbt", *(path / "d").iterdir()):
        file.unlink()
    store = ts.KvStore.open({"driver": "ocdbt", "base": path.as_uri(), "config": config}).result()
    metadata = {"zarr_format": 2, "shape": [24], "chunks": [24], "dtype": "<f4", "compressor": None, "filters": None,
                "order": "C", "fill_value": None}  # fmt: skip
    with ts.Transaction() as transaction:
        inside = store.with_transaction(transaction)
        inside.write("norm.scale/.zarray", json.dumps(metadata).encode()).result()
        inside.write("norm.scale/0", bytes(96)).result()
        for at in range(300):
            inside.write(f"z{at:04}", bytes(1 << 20)).result()


BOMBS = [bomb_npz, bomb_strides, bomb_strides_legacy, bomb_zip, bomb_onnx, bomb_msgpack, bomb_orbax, bomb_ocdbt]


def test_small_files_that_claim_gigabytes_are_refused_before_memory_is_taken(tmp_path) -> None:
    """Each in turn, in a process of its own. Measured: at most 4 MB beyond the imports."""
    for make in BOMBS:
        make(tmp_path / make.__name__)
        assert sum(file.stat().st_size for file in files_of(tmp_path / make.__name__)) < 2 << 20
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *(tmp_path / make.__name__ for make in BOMBS)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    for path, sentence, grown in json.loads(done.stdout):
        assert sentence.startswith(path), (path, sentence)
        assert grown < 40 << 20, (path, grown)


class Code:
    """Unpickling this creates the file that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickle_bare(path: Path, code: Code) -> None:
    path.write_bytes(pickle.dumps({"head.weight": code}))


def pickle_zip(path: Path, code: Code) -> None:
    torch.save(STATE | {"code": code}, path)


def pickle_legacy(path: Path, code: Code) -> None:
    torch.save(STATE | {"code": code}, path, _use_new_zipfile_serialization=False)


def pickle_npz(path: Path, code: Code) -> None:
    with path.open("wb") as file:
        np.savez(file, cls=np.zeros(3), code=np.array([code], dtype=object))


def pickle_in_a_folder(path: Path, code: Code) -> None:
    MAKERS["huggingface"](path)
    (path / "model.safetensors").unlink()
    torch.save(STATE | {"code": code}, path / "pytorch_model.bin")


@pytest.mark.parametrize("command", ["inspect", "convert"])
@pytest.mark.parametrize("make", [pickle_bare, pickle_zip, pickle_legacy, pickle_npz, pickle_in_a_folder])
def test_code_in_a_pickle_never_runs(make, command, tmp_path, capfd) -> None:
    path, sentinel = tmp_path / "evil", tmp_path / "sentinel"
    make(path, Code(sentinel))
    before = sorted(tmp_path.rglob("*"))
    more = [str(tmp_path / "out"), "--to", "timm"] if command == "convert" else []
    assert main([command, str(path), *more, "--model", MODEL]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert not sentinel.exists()


def test_the_code_in_the_pickles_would_run(tmp_path) -> None:
    """A test of the test above."""
    for make in (pickle_zip, pickle_npz):
        make(tmp_path / "evil", Code(tmp_path / "sentinel"))
        if make is pickle_zip:
            torch.load(tmp_path / "evil", weights_only=False)
        else:
            np.load(tmp_path / "evil", allow_pickle=True)["code"]
        (tmp_path / "sentinel").unlink()


def safetensors_file(header: str, size: int) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + bytes(size)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_tensors_of_one_name_are_refused_and_neither_is_taken(tmp_path) -> None:
    entry = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    (tmp_path / "a.safetensors").write_bytes(safetensors_file("{" + entry + "," + entry + "}", 4))
    with safetensors.safe_open(tmp_path / "a.safetensors", "numpy") as file:
        assert list(file.keys()) == ["a"]  # the library sees nothing
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("a.npy", archive.read("a.npy"))
    torch.save(STATE, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        archive.writestr(archive.namelist()[-1], b"")
    (tmp_path / "a.msgpack").write_bytes(b"\x82\xa1a\x01\xa1a\x02")
    model = graph(PARAMS)
    model.graph.initializer.append(model.graph.initializer[0])
    onnx.save(model, tmp_path / "a.onnx")
    for path in tmp_path.iterdir():
        with pytest.raises(VitportError, match="more than once"):
            open_source(path)


@pytest.mark.parametrize("shape", [(), (24,), (1, 24), (3, 1, 1, 24)])
@pytest.mark.parametrize("name", ["a.safetensors", "a.npz", "a.msgpack", "a.pth"])
def test_a_tensor_of_the_wrong_rank_is_named_with_both_shapes(name, shape, tmp_path) -> None:
    wrong = PARAMS | {"cls_token": np.zeros(shape, np.float32)}
    if name == "a.safetensors":
        save_file(wrong, tmp_path / name)
    elif name == "a.pth":
        torch.save({name: torch.from_numpy(array) for name, array in wrong.items()}, tmp_path / name)
    else:
        MAKERS[name](tmp_path / "good")
        tree = dict(open_source(tmp_path / "good").table) | {"cls": wrong["cls_token"]}
        if name == "a.npz":
            np.savez(tmp_path / name, **tree)
        else:
            from flax.serialization import to_bytes

            (tmp_path / name).write_bytes(to_bytes(conversion.tensors.flax_tree.nest(tree)))
    with pytest.raises(VitportError) as caught:
        conversion.load(tmp_path / name, model=CONFIG)
    assert "cls_token" in str(caught.value)
    assert f"has shape {shape} instead of (1, 1, 24)" in str(caught.value)


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../secret.safetensors"}, {"a": "/etc/passwd"}, {"a": "folder/../../secret.safetensors"}, {"a": ".."},
        {"a": "."}, {"a": ""}, {"a": "a\0b"}, {"a": 1}, {"a": ["model.safetensors"]}, {"a": None}, [], {}, None, "a",
        {"a": "absent.safetensors"},
    ],
    ids=repr,
)  # fmt: skip
def test_an_index_that_names_anything_but_files_of_its_folder_is_refused(weight_map, folder) -> None:
    save_file(PARAMS, folder.parent / "secret.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(VitportError, match=r"index\.json (points outside|names shards|has no weight_map)"):
        conversion.load(folder)


@pytest.mark.parametrize("fault", ["missing", "outside", "short"])
def test_weights_beside_a_graph_are_read_whole_and_from_its_folder_alone(fault, tmp_path) -> None:
    (tmp_path / "graph").mkdir()
    path, data = tmp_path / "graph" / "m.onnx", tmp_path / "graph" / "weights.bin"
    onnx.save(graph(PARAMS), path, save_as_external_data=True, location=data.name, size_threshold=0)
    assert_same_tensors(conversion.load(path, model=CONFIG).params, PARAMS)
    if fault == "short":
        data.write_bytes(data.read_bytes()[:-100])
    else:
        data.rename(tmp_path / data.name)
    if fault == "outside":
        model = onnx.load(path, load_external_data=False)
        for entry in (entry for weight in model.graph.initializer for entry in weight.external_data):
            if entry.key == "location":
                entry.value = f"../{data.name}"
        onnx.save(model, path)
    told = {"missing": "does not exist", "outside": "not a file in the graph's own folder", "short": "bytes at byte"}
    with pytest.raises(VitportError, match=told[fault]):
        conversion.load(path, model=CONFIG)


STRANGE = [None, "abc", -1, 0, 1e300, 1 << 70, [], {}, [[1]], True, {"a": 1}, float("nan"), [1, 2, 3], ["a", "b"]]


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_value_of_any_wrong_kind_in_a_folders_json_is_one_sentence_or_harmless(name, folder) -> None:
    whole = json.loads((folder / name).read_text())
    refused = 0
    for key, value in ((key, value) for key in whole if key != "label2id" for value in STRANGE):
        (folder / name).write_text(json.dumps(whole | {key: value}))
        try:
            conversion.load(folder)
        except VitportError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10


def test_a_value_of_any_wrong_kind_in_our_own_record_is_one_sentence_or_harmless(tmp_path) -> None:
    record = conversion.Checkpoint.of(CONFIG, PARAMS).record()
    changed = [record | {key: value} for key in record for value in STRANGE]
    changed += [
        record | {part: record[part] | {key: value}}
        for part in ("config", "preprocessing", "source") for key in record[part] for value in STRANGE
    ]  # fmt: skip
    refused = 0
    for own in (*changed, *STRANGE):
        save_file({"head.bias": PARAMS["head.bias"]}, tmp_path / "w", {"vitport": json.dumps(own)})
        with pytest.raises(VitportError):
            conversion.load(tmp_path / "w")
        save_file(PARAMS, tmp_path / "w", {"vitport": json.dumps(own)})
        try:
            conversion.load(tmp_path / "w")
        except VitportError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 9, '"a"', "", "\xff", "NaN"])
def test_json_that_is_none_is_one_sentence(text, folder) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(VitportError, match=r"config\.json"):
        conversion.load(folder)


def test_a_compressed_torch_archive_is_refused_and_not_read_wrongly(tmp_path) -> None:
    """PyTorch itself maps the compressed bytes as if they were the numbers."""
    torch.save(STATE, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as old,
        zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    mapped = torch.load(tmp_path / "z.pth", mmap=True, weights_only=True)
    assert not torch.equal(mapped["head.weight"], STATE["head.weight"])
    with pytest.raises(VitportError, match="compressed archive"):
        conversion.load(tmp_path / "z.pth", model=CONFIG)


def test_a_torch_pickle_that_reaches_into_the_next_record_is_refused(tmp_path) -> None:
    """PyTorch takes a storage's length from the pickle: here one number more than the record has."""
    torch.save({"cls_token": torch.ones(200), "norm.weight": torch.zeros(24)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as old, zipfile.ZipFile(tmp_path / "long.pth", "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("data.pkl"):
                assert content.count(b"K\xc8") == 2  # the length, and the shape
                content = content.replace(b"K\xc8", b"K\xc9")
            new.writestr(info, content)
    with pytest.raises(VitportError, match="disagree about sizes"):
        open_source(tmp_path / "long.pth")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(VitportError, match="not a file of weights"):
            open_source(path)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_values_that_are_not_finite_are_counted(dtype) -> None:
    """Oracle: they were put there. Large finite values, whose sum is infinite, are not counted."""
    array = np.full((30, 50), ml_dtypes.finfo(dtype).max, dtype)
    assert count_not_finite(array) == 0
    array[3, 4], array[5, 6], array[0, 0] = np.nan, np.inf, -np.inf
    assert count_not_finite(array) == 3
    assert count_not_finite(array.T) == 3
    assert count_not_finite(np.zeros((0, 3), dtype)) == 0
    assert count_not_finite(np.array(np.nan, dtype)) == 1


@pytest.mark.parametrize("target", ["timm", "google", "huggingface", "flax"])
def test_weights_that_are_not_finite_are_reported_by_name_and_count(target, tmp_path, capsys) -> None:
    """``inspect`` warns, and ``convert`` says it of what it wrote; the query's share of qkv is read three times."""
    params = {name: array.copy() for name, array in PARAMS.items()}
    params["blocks.1.attn.qkv.weight"][:30, 2] = np.nan
    params["head.bias"][3] = np.inf
    conversion.save(conversion.Checkpoint.of(CONFIG, params), tmp_path / "w", format="timm", activation="keep")
    told = ["blocks.1.attn.qkv.weight holds 30 values that are NaN or infinite", "head.bias holds 1 value that is NaN"]
    assert main(["inspect", str(tmp_path / "w")]) == 0
    printed = capsys.readouterr().out
    assert all(sentence in printed for sentence in told)
    assert main(["convert", str(tmp_path / "w"), str(tmp_path / "out"), "--to", target, "--activation", "keep"]) == 0
    printed = capsys.readouterr().out
    assert all(sentence in printed for sentence in told)


def test_msgpack_that_nests_without_end_is_one_sentence(tmp_path) -> None:
    (tmp_path / "w").write_bytes(b"\x81\xa1a" * 100_000 + b"\x01")
    with pytest.raises(VitportError, match="not a complete Flax msgpack"):
        open_source(tmp_path / "w")
    deep: object = 1
    for _ in range(900):
        deep = {"a": deep}
    (tmp_path / "w").write_bytes(msgpack.packb(deep))
    with pytest.raises(VitportError):
        conversion.load(tmp_path / "w")
