"""The npz container. Oracle: numpy's own ``savez`` and ``load``."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from conversion.containers import npz_file, open_source
from conversion.tensors.table import TensorTable
from tests.conversion.canaries import assert_same_tensors, canary_checkpoint
from vit_spec import VitportError

RNG = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "a/kernel": RNG.normal(size=(3, 4, 5)).astype(np.float32),
    "a/bias": RNG.normal(size=7).astype(ml_dtypes.bfloat16),
    "half": RNG.normal(size=(2, 1)).astype(np.float16),
    "double": RNG.normal(size=(200, 60)),
    "step": np.array(12),
    "empty": np.zeros((0, 3), np.float32),
}


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    npz_file.write(path, TensorTable.of(arrays), canary_checkpoint(), lambda name: None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_what_numpy_wrote_is_read_bit_for_bit_with_its_shapes_told_before(tmp_path, save) -> None:
    save(tmp_path / "w.npz", **ARRAYS)
    table = open_source(tmp_path / "w.npz").table
    assert {name: table.spec(name) for name in table} == {name: (a.shape, a.dtype) for name, a in ARRAYS.items()}
    assert_same_tensors(table, ARRAYS)


def test_fortran_order_and_big_endian_are_read_as_numpy_reads_them(tmp_path) -> None:
    odd = {"columns": np.asfortranarray(ARRAYS["a/kernel"]), "big": ARRAYS["double"].astype(">f8")}
    np.savez(tmp_path / "w.npz", **odd)
    table = open_source(tmp_path / "w.npz").table
    assert (table["columns"] == odd["columns"]).all()
    assert (table["big"] == odd["big"]).all()
    assert table.spec("big")[1] == table["big"].dtype == np.dtype("=f8")


def test_we_write_member_for_member_what_numpy_writes(tmp_path) -> None:
    _write(tmp_path / "ours.npz", ARRAYS)
    np.savez(tmp_path / "numpys.npz", **ARRAYS)
    with zipfile.ZipFile(tmp_path / "ours.npz") as ours, zipfile.ZipFile(tmp_path / "numpys.npz") as numpys:
        assert ours.namelist() == sorted(numpys.namelist())
        for name in ours.namelist():
            assert ours.read(name) == numpys.read(name), name
    loaded = np.load(tmp_path / "ours.npz")
    assert loaded["a/bias"].dtype == np.dtype("V2")
    assert (loaded["double"] == ARRAYS["double"]).all()


def test_the_same_weights_make_the_same_file(tmp_path) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name, ARRAYS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_one_entry_of_an_uncompressed_stack_is_read_without_the_rest(tmp_path) -> None:
    stack = RNG.normal(size=(5, 3, 4)).astype(np.float32)
    bits = stack.astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / "w.npz", first=np.zeros(3), stack=stack, bits=bits, scalar=np.array(1.0))
    tensors = open_source(tmp_path / "w.npz").table.tensors
    for name, expected in {"stack": stack, "bits": bits}.items():
        entry = tensors[name].read_entry
        assert entry is not None
        for i in (0, 3, 4):
            assert entry(i).dtype == expected.dtype
            assert entry(i).tobytes() == expected[i].tobytes()
    assert tensors["scalar"].read_entry is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_opening_reads_no_array_and_writing_holds_three(tmp_path, save) -> None:
    arrays = {f"t{i}": RNG.normal(size=1 << 20) for i in range(6)}  # 8 MiB each
    save(tmp_path / "w.npz", **arrays)
    del arrays
    tracemalloc.start()
    table = open_source(tmp_path / "w.npz").table
    opened = tracemalloc.get_traced_memory()[1]
    _write(tmp_path / "copy.npz", table)  # pyright: ignore[reportArgumentType]
    written = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened < 1 << 20
    assert written < 3.7 * (8 << 20)  # one being written while two are read; measured: 3.0 tensors


def test_a_branch_is_chosen_by_weights_key(tmp_path) -> None:
    np.savez(tmp_path / "w.npz", **{"ema/a": np.ones(2), "params/a": np.zeros(2), "params/b": np.zeros(1)})
    source = open_source(tmp_path / "w.npz", "params")
    assert set(source.table) == {"params/a", "params/b"}
    assert source.notes == ("read the weights under 'params', as asked",)
    with pytest.raises(VitportError, match="no weights under 'emma': choose one of ema, params"):
        open_source(tmp_path / "w.npz", "emma")


def test_arrays_of_text_are_set_aside_and_told(tmp_path) -> None:
    np.savez(tmp_path / "w.npz", a=np.ones(2), config=np.array("a text"))
    source = open_source(tmp_path / "w.npz")
    assert set(source.table) == {"a"}
    assert any("config" in note for note in source.notes)


def test_an_archive_is_recognised_by_its_content(tmp_path) -> None:
    np.savez(tmp_path / "w.npz", a=np.ones(2))
    (tmp_path / "w.npz").rename(tmp_path / "w.bin")
    assert open_source(tmp_path / "w.bin").container == "NumPy npz"


class _Malicious:
    def __reduce__(self):
        import os

        return os.mkdir, ("ran",)


def test_python_objects_are_refused_and_their_code_does_not_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("w.npz", a=np.ones(2), b=np.array([_Malicious()], dtype=object))
    with pytest.raises(VitportError, match="Python objects in b"):
        open_source(tmp_path / "w.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_one_sentence(tmp_path, share) -> None:
    np.savez(tmp_path / "w.npz", **ARRAYS)
    whole = (tmp_path / "w.npz").read_bytes()
    (tmp_path / "w.npz").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(VitportError, match=r"not a complete npz file \("):
        open_source(tmp_path / "w.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_any_flipped_bit_in_an_array_is_noticed_when_it_is_read(tmp_path, save) -> None:
    stack = RNG.normal(size=(40, 50))
    save(tmp_path / "w.npz", stack=stack)
    whole = bytearray((tmp_path / "w.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "w.npz") as archive:
        size = archive.infolist()[0].compress_size
    for at in (300, 300 + size // 2, size - 100):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        (tmp_path / "w.npz").write_bytes(damaged)
        with pytest.raises(VitportError, match=r"damaged at stack \("):
            _ = open_source(tmp_path / "w.npz").table["stack"]
        entry = open_source(tmp_path / "w.npz").table.tensors["stack"].read_entry
        if entry is not None:
            with pytest.raises(VitportError, match=r"damaged at stack \("):
                entry(39)


def _archive(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path) -> None:
    _archive(
        tmp_path / "w.npz", [("a.npy", _npy(np.ones(2))), ("b.npy", _npy(np.ones(2))), ("a.npy", _npy(np.zeros(2)))]
    )
    with pytest.raises(VitportError, match="holds a more than once"):
        open_source(tmp_path / "w.npz")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as member,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": (300 << 18,)}  # 300 MiB of zeros in 300 kB
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(300):
            member.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(VitportError, match="would unpack to 3145"):
        open_source(tmp_path / "w.npz")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("shape", [(1 << 40,), (-2, -1), (3,), (2, 2)])
def test_a_header_that_lies_about_its_size_is_refused(tmp_path, shape) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    _archive(tmp_path / "w.npz", [("a.npy", buffer.getvalue() + struct.pack("<2f", 1, 2))])
    with pytest.raises(VitportError, match="is damaged: a says it is"):
        open_source(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY\x01", b"\x93NUMPY\x01\x00\x05\x00{'a':", b"hello" * 9, b"\x93NUMPY\x09\x00" + bytes(90)],
)
def test_a_member_that_is_no_array_is_one_sentence(tmp_path, content) -> None:
    _archive(tmp_path / "w.npz", [("a.npy", content)])
    with pytest.raises(VitportError, match=r"damaged at a \("):
        open_source(tmp_path / "w.npz")


@pytest.mark.parametrize("damaged", ["half.npY", "h\x7flf.npy"])
def test_a_name_that_is_damaged_in_the_archives_directory_is_refused(damaged: str, tmp_path: Path) -> None:
    """A member is named twice, before its content and in the directory. A head's bias that was set aside for its name
    would be taken for zeros."""
    np.savez(tmp_path / "w.npz", **ARRAYS)  # pyright: ignore[reportArgumentType]
    content = (tmp_path / "w.npz").read_bytes()
    found = content.rindex(b"half.npy")
    (tmp_path / "w.npz").write_bytes(content[:found] + damaged.encode() + content[found + len(damaged) :])
    with pytest.raises(
        VitportError, match=r"w\.npz is (not a complete npz file|damaged at .*) \(File name in directory"
    ):
        list(open_source(tmp_path / "w.npz").table.values())
