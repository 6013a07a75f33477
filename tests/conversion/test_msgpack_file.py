"""Flax's msgpack. Oracle: ``flax.serialization`` itself."""

from __future__ import annotations

import flax.serialization
import ml_dtypes
import msgpack
import numpy as np
import pytest

from conversion.containers import msgpack_file, open_source
from conversion.tensors.flax_tree import flatten
from conversion.tensors.table import TensorTable
from tests.conversion.canaries import assert_same_tensors, canary_checkpoint
from vit_spec import VitportError

RNG = np.random.default_rng(0)
TREE = {
    "a": {"kernel": RNG.normal(size=(3, 4)).astype(np.float32), "bias": RNG.normal(size=4).astype(ml_dtypes.bfloat16)},
    "half": RNG.normal(size=(2, 1)).astype(np.float16),
}


@pytest.mark.parametrize("name", ["w.msgpack", "checkpoint_7"])
def test_what_flax_wrote_is_read_bit_for_bit(tmp_path, name) -> None:
    (tmp_path / name).write_bytes(flax.serialization.to_bytes(TREE))
    source = open_source(tmp_path / name)
    assert source.container == "Flax msgpack"
    assert_same_tensors(source.table, flatten(TREE))


def test_flax_reads_what_we_write(tmp_path) -> None:
    table = TensorTable.of(flatten(TREE))
    msgpack_file.write(tmp_path / "w", table, canary_checkpoint(), lambda name: None)
    assert_same_tensors(flatten(flax.serialization.msgpack_restore((tmp_path / "w").read_bytes())), flatten(TREE))
    assert (tmp_path / "w").read_bytes() == flax.serialization.to_bytes(TREE)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 6, 7, 14, 200, 255, 256, 300, 70_000])
def test_every_length_is_written_as_flax_writes_it(tmp_path, size) -> None:
    """Lengths have headers of several widths."""
    tree = {"a": {"kernel": np.zeros((size, 1), np.int8), "scalar": np.array(1.5)}, "b" * size: np.ones(2)}
    tree |= {f"many{at}": {f"deep{at}": np.zeros(at, np.uint8)} for at in range(20)}
    msgpack_file.write(tmp_path / "w", TensorTable.of(flatten(tree)), canary_checkpoint(), lambda name: None)
    assert (tmp_path / "w").read_bytes() == flax.serialization.to_bytes(tree)


def test_an_array_too_long_for_flax_is_written_in_its_chunks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 16)
    msgpack_file.write(tmp_path / "w", TensorTable.of(flatten(TREE)), canary_checkpoint(), lambda name: None)
    assert (tmp_path / "w").read_bytes() == flax.serialization.to_bytes(TREE)
    assert_same_tensors(open_source(tmp_path / "w").table, flatten(TREE))


def test_arrays_in_several_chunks_are_read_whole(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 16)
    content = flax.serialization.msgpack_serialize(TREE)
    assert b"__msgpack_chunked_array__" in content
    (tmp_path / "w").write_bytes(content)
    assert_same_tensors(open_source(tmp_path / "w").table, flatten(TREE))


def test_a_branch_is_chosen_by_weights_key_and_no_arrays_are_told(tmp_path) -> None:
    parts = {"params": TREE, "ema_params": TREE, "step": 3}
    (tmp_path / "w").write_bytes(flax.serialization.to_bytes(parts))
    source = open_source(tmp_path / "w", "params")
    assert set(source.table) == {f"params/{name}" for name in flatten(TREE)}
    assert source.notes == ("read the weights under 'params', as asked", "set aside because they are not arrays: step")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_one_sentence(tmp_path, share) -> None:
    whole = flax.serialization.to_bytes(TREE)
    (tmp_path / "w.msgpack").write_bytes(whole[: int(len(whole) * share)])
    told = r"not a complete Flax msgpack file \(" if share else "is an empty file: fetch or write it again"
    with pytest.raises(VitportError, match=told):
        open_source(tmp_path / "w.msgpack")


def _entry(shape: tuple[int, ...], dtype: str, content: bytes) -> bytes:
    return msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb((shape, dtype, content)))})


DAMAGED = {
    "an array of objects": _entry((1,), "O", bytes(8)),
    "an array that is too short": _entry((3,), "float32", bytes(8)),
    "an array of the wrong rank": _entry((1 << 40, 1 << 40), "float32", bytes(8)),
    "an unknown dtype": _entry((2,), "float33", bytes(8)),
    "an array of records": _entry((1,), "float32,float32", bytes(8)),
    "an array of nothing": _entry((1 << 60,), "S0", b""),
    "an array whose axes are not numbers": _entry(("3",), "uint8", bytes(3)),
    "an array with a negative axis": _entry((-1, -3), "uint8", bytes(3)),
    "an array told in two parts": msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((1,), "uint8")))}),
    "an array that is longer than its entry": msgpack.packb({"a": msgpack.ExtType(1, _entry((9,), "uint8", bytes(9)))}),
    "chunks of another length": msgpack.packb(
        {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"0": 7}}}
    ),
    "a code that means nothing": b"\x81\xa1a\xc1",
    "more after its end": msgpack.packb({"a": 1}) + b"\x01",
    "a list for a key": b"\x81\xa1a\x81\x91\x01\x02",
    "a name that occurs twice": b"\x82\xa1a\x01\xa1a\x02",
    "a name that occurs twice inside": b"\x81\xa1b\x82\xa1a\x01\xa1a\x02",
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_file_is_one_sentence(tmp_path, fault) -> None:
    (tmp_path / "w").write_bytes(DAMAGED[fault])
    with pytest.raises(VitportError, match=r"not a complete Flax msgpack file \("):
        open_source(tmp_path / "w")


def test_a_file_that_holds_no_tree_is_one_sentence(tmp_path) -> None:
    (tmp_path / "w.msgpack").write_bytes(msgpack.packb([1, 2]))
    with pytest.raises(VitportError, match="holds list instead of a tree"):
        open_source(tmp_path / "w.msgpack")


def test_whatever_else_lies_in_a_tree_is_passed_by_and_told(tmp_path) -> None:
    """Every type of msgpack in every width. Oracle: flax finds the same names."""
    others = {
        "none": None, "yes": True, "no": False, "list": [1, [2.5, "x"], {"a": 1}], "text": "ü" * 40,
        "long": "x" * 70_000,
        "bytes": bytes(300), "short": b"x", "float": 1.5, "complex": 1 + 2j, "scalar": np.float32(3),
        "many": [0] * 70_000,
        **{f"int{n}": n for n in (0, 127, 128, 255, 256, 65_536, 1 << 33, -1, -32, -33, -129, -40_000, -(1 << 33))},
    }  # fmt: skip
    content = flax.serialization.to_bytes({"a": TREE["a"], "others": others, "half": TREE["half"]})
    (tmp_path / "w.msgpack").write_bytes(content)
    source = open_source(tmp_path / "w.msgpack")
    assert_same_tensors(source.table, flatten(TREE))
    restored = flatten(flax.serialization.msgpack_restore(content))
    assert source.notes[0].startswith("set aside because they are not arrays: ")
    told = set(source.notes[0].removeprefix("set aside because they are not arrays: ").split(", "))
    assert told == set(restored) - set(flatten(TREE))


def test_arrays_are_read_when_asked_for_and_a_file_cut_short_meanwhile_is_told(tmp_path) -> None:
    (tmp_path / "w.msgpack").write_bytes(flax.serialization.to_bytes(TREE))
    table = open_source(tmp_path / "w.msgpack").table
    (tmp_path / "w.msgpack").write_bytes(b"\x80")
    with pytest.raises(VitportError, match="ends within half"):
        table["half"]
