"""Orbax checkpoints read through TensorStore. Oracle: the arrays that orbax was given, and what it restores itself."""

from __future__ import annotations

import bz2
import gzip
import json
import zlib
from typing import Any

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

import conversion
from conversion.containers import open_source, orbax_folder
from conversion.tensors.flax_tree import flatten, nest
from conversion.tensors.table import TensorTable
from tests import peak_memory
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_params
from vit_spec import VitportError

RNG = np.random.default_rng(0)
TREE = {
    "a": {"kernel": RNG.normal(size=(3, 4)).astype(np.float32), "bias": RNG.normal(size=4).astype(ml_dtypes.bfloat16)},
    "0": {"half": RNG.normal(size=(2, 1, 5)).astype(np.float16)},
    "step": np.array(7),
}
LAYOUTS = {
    "database": {}, "folders": {"use_ocdbt": False}, "zarr3": {"use_zarr3": True},
    "zarr3 in folders": {"use_zarr3": True, "use_ocdbt": False},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_that_orbax_writes_is_read_bit_for_bit(layout, tmp_path) -> None:
    saver = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**LAYOUTS[layout]))
    saver.save(tmp_path / "tree", TREE)
    source = open_source(tmp_path / "tree")
    assert source.container == "orbax checkpoint"
    assert_same_tensors(source.table, flatten(TREE))
    assert {name: source.table.spec(name) for name in source.table} == {
        name: (array.shape, array.dtype) for name, array in flatten(TREE).items()
    }


def test_orbax_restores_what_we_write(tmp_path) -> None:
    params = canary_params(ASYMMETRIC)
    conversion.save(conversion.Checkpoint.of(ASYMMETRIC, params), tmp_path / "w", format="flax")
    restored = ocp.PyTreeCheckpointer().restore(tmp_path / "w" / "params")
    assert_same_tensors(flatten(restored), {path: np.asarray(a) for path, a in conversion.to_flax(params).items()})


def test_orbax_restores_what_was_committed_in_many_parts(tmp_path, monkeypatch) -> None:
    """Each beside the reading of the next, where a few arrays are a part."""
    monkeypatch.setattr(orbax_folder, "_TOGETHER", 3000)
    params = canary_params(ASYMMETRIC)
    conversion.save(conversion.Checkpoint.of(ASYMMETRIC, params), tmp_path / "w", format="flax")
    restored = ocp.StandardCheckpointer().restore(tmp_path / "w" / "params")
    assert_same_tensors(flatten(restored), {path: np.asarray(a) for path, a in conversion.to_flax(params).items()})


def test_arrays_lie_together_in_few_files(tmp_path) -> None:
    """Flushing a file costs what flushing megabytes does: a file for an array made a conversion take twice the time."""
    params = canary_params(ASYMMETRIC)
    conversion.save(conversion.Checkpoint.of(ASYMMETRIC, params), tmp_path / "w", format="flax")
    assert len(list((tmp_path / "w" / "params" / "d").iterdir())) < len(params) / 2


def test_the_value_level_of_nnx_is_taken_off_and_no_arrays_are_told(tmp_path) -> None:
    tree = {"a": {"kernel": {"value": TREE["a"]["kernel"]}}, "name": "text", "nothing": None}
    ocp.PyTreeCheckpointer().save(tmp_path / "tree", tree)
    source = open_source(tmp_path / "tree")
    assert_same_tensors(source.table, {"a/kernel": TREE["a"]["kernel"]})
    assert source.notes == ("set aside because they are not arrays: name, nothing",)


def test_optimizer_state_and_step_beside_the_parameters_are_set_aside(tmp_path) -> None:
    params = canary_params(ASYMMETRIC)
    tree = nest(conversion.to_flax(params))
    ocp.PyTreeCheckpointer().save(tmp_path / "tree", {"params": tree, "opt_state": {"mu": tree}, "step": 3})
    checkpoint = conversion.load(tmp_path / "tree", model=ASYMMETRIC)
    assert_same_tensors(checkpoint.params, params)
    assert any("(opt_state/mu, step)" in note for note in checkpoint.provenance.notes)


def test_opening_reads_no_array(tmp_path) -> None:
    """The largest is asked for alone: its chunks are gone, and the others are still read."""
    saver = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False))
    saver.save(tmp_path / "tree", TREE)
    (tmp_path / "tree" / "a.kernel" / "0.0").write_bytes(b"damaged")
    table = open_source(tmp_path / "tree").table
    assert table["step"] == 7
    with pytest.raises(VitportError, match="is damaged at a/kernel"):
        _ = table["a/kernel"]


@pytest.mark.parametrize("layout", ["folders", "zarr3 in folders"])
def test_a_chunk_that_is_gone_is_refused_and_zeros_are_read(layout, tmp_path) -> None:
    """An array of zeros has its chunk on the disk like every other, so a missing one never stands for zeros."""
    zeros = {"a": {"kernel": np.zeros((3, 4), np.float32)}, "b": np.ones(3, np.float32)}
    saver = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**LAYOUTS[layout]))
    saver.save(tmp_path / "tree", zeros)
    assert_same_tensors(open_source(tmp_path / "tree").table, flatten(zeros))
    chunk = next(path for path in (tmp_path / "tree" / "b").rglob("*") if path.name == "0")
    chunk.unlink()
    with pytest.raises(VitportError, match="is damaged at b "):
        open_source(tmp_path / "tree").table["b"]


def test_zeros_that_we_write_are_read(tmp_path) -> None:
    params = {name: np.zeros_like(array) for name, array in canary_params(ASYMMETRIC).items()}
    conversion.save(conversion.Checkpoint.of(ASYMMETRIC, params), tmp_path / "w", format="flax")
    assert_same_tensors(conversion.load(tmp_path / "w").params, params)


@pytest.mark.parametrize("key", ["absolute", "..", "link"])
def test_an_array_outside_the_folder_is_not_read(key, tmp_path) -> None:
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)).save(tmp_path / "tree", {"b": np.ones(3)})
    (tmp_path / "tree" / "b").rename(tmp_path / "away")
    name = {"absolute": str(tmp_path / "away"), "..": "../away", "link": "b"}[key]
    if key == "link":
        (tmp_path / "tree" / "b").symlink_to(tmp_path / "away")
    metadata = tmp_path / "tree" / "_METADATA"
    metadata.write_text(metadata.read_text().replace('"key": "b"', f'"key": "{name}"'))
    with pytest.raises(VitportError, match="lies outside the folder"):
        open_source(tmp_path / "tree")


def test_a_chunk_larger_than_its_array_is_refused(tmp_path) -> None:
    """TensorStore would allocate the chunk, and end the process where there is no memory for it."""
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)).save(tmp_path / "tree", {"b": np.ones(3)})
    array = tmp_path / "tree" / "b" / ".zarray"
    array.write_text(json.dumps({**json.loads(array.read_text()), "chunks": [2**40]}))
    with pytest.raises(VitportError, match="larger than its shape"):
        open_source(tmp_path / "tree")


def test_folders_of_orbaxs_next_interface_are_read(tmp_path) -> None:
    """``orbax.checkpoint.v1``: a tree, one among others, and the last of its steps."""
    from orbax.checkpoint import v1

    params = canary_params(ASYMMETRIC)
    tree = conversion.FORMATS["flax"].names.write(TensorTable.of(params), ASYMMETRIC)
    arrays = nest({name: np.asarray(tree[name]) for name in tree})
    v1.save_pytree(tmp_path / "tree", {"params": arrays})
    v1.save_checkpointables(tmp_path / "several", {"model": arrays, "rest": {"count": np.ones(3)}})
    with v1.training.Checkpointer(tmp_path / "steps") as steps:
        steps.save_pytree(1, {"params": nest({name: 2 * np.asarray(tree[name]) for name in tree})})
        steps.save_pytree(12, {"params": arrays})
    for name, key in (("tree", None), ("several", "model"), ("steps", None)):
        found = conversion.load(tmp_path / name, model=ASYMMETRIC, weights_key=key)
        assert_same_tensors(found.params, params)
        assert (name != "steps") or any("read step 12, the last one" in note for note in found.provenance.notes)


@pytest.mark.parametrize("is_third", [False, True])
@pytest.mark.parametrize("together", [True, False])
def test_chunks_of_blosc_are_read_unless_they_claim_more_than_they_must_have(is_third, together, tmp_path) -> None:
    """TensorStore takes as many bytes as the head of such a chunk claims: 64 MiB here, for 96."""
    ocp.PyTreeCheckpointer(use_ocdbt=together, use_zarr3=is_third).save(tmp_path / "w", {"a": {"b": np.ones((5, 7))}})
    place = {"driver": "file", "path": f"{tmp_path}/w/a.b/"}
    if together:
        place = {"driver": "ocdbt", "base": (tmp_path / "w").as_uri(), "path": "a.b/"}
    values = np.arange(35, dtype=np.float32).reshape(5, 7) + 1

    def stored(array: np.ndarray, chunk: list[int]) -> ts.TensorStore:
        packed: dict[str, Any] = {"cname": "zstd", "clevel": 1, "shuffle": 0}
        metadata: dict[str, Any] = {"shape": array.shape, "chunks": chunk, "dtype": "<f4",
                                    "compressor": {"id": "blosc", **packed}}  # fmt: skip
        if is_third:
            codec = {"name": "blosc", "configuration": packed | {"shuffle": "noshuffle", "typesize": 4, "blocksize": 0}}
            metadata = {"shape": array.shape, "data_type": "float32", "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}}, codec
            ], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}}}  # fmt: skip
        spec = {"driver": "zarr3" if is_third else "zarr", "kvstore": place, "metadata": metadata}
        store = ts.open(spec, create=True, delete_existing=True).result()
        store.write(array).result()
        return store

    store = stored(values, [2, 4])
    np.testing.assert_array_equal(orbax_folder.read(tmp_path / "w").table["a/b"], values)
    kept = {key: store.kvstore.read(key).result().value for key in store.kvstore.list().result()}
    large = stored(np.ones((1, 16 << 20), np.float32), [1, 16 << 20])
    (chunk,) = (key for key in large.kvstore.list().result() if b"zarr" not in key)
    bomb = large.kvstore.read(chunk).result().value
    assert len(bomb) < 1 << 20
    stored(values, [2, 4])
    for key in kept:
        if b"zarr" not in key:
            store.kvstore.write(key, bomb).result()
    table = orbax_folder.read(tmp_path / "w").table
    before = peak_memory.start()
    with pytest.raises(VitportError, match="a chunk of a/b claims 67108864 bytes, but must have 32"):
        table["a/b"]
    assert peak_memory.taken(before) < 40 << 20


def _zstd_of_zeros(count: int) -> bytes:
    """A frame of RFC 8878 in which each block of 4 bytes stands for 128 KiB of zeros."""
    head = b"\x28\xb5\x2f\xfd" + b"\x00\x38"  # no size, windows of 128 KiB
    blocks = [(1 << 20 | 1 << 1 | (at == count - 1)).to_bytes(3, "little") + b"\0" for at in range(count)]
    return head + b"".join(blocks)


BOMBS = {
    "zstd": lambda: _zstd_of_zeros(512), "gzip": lambda: gzip.compress(bytes(1 << 26), 1),
    "zlib": lambda: zlib.compress(bytes(1 << 26), 1), "bz2": lambda: bz2.compress(bytes(1 << 26)),
}  # fmt: skip
"""Packed 64 MiB of zeros."""


@pytest.mark.parametrize("packed", BOMBS)
def test_a_chunk_that_unpacks_to_more_than_it_must_have_costs_a_sentence(packed, tmp_path) -> None:
    """Nothing of ours stops it: TensorStore unpacks no further than the chunk. Measured: at most 2 MB."""
    ocp.PyTreeCheckpointer(use_ocdbt=False).save(tmp_path / "w", {"a": {"b": np.ones(24, np.float32)}})
    told = json.loads((tmp_path / "w" / "a.b" / ".zarray").read_text())
    (tmp_path / "w" / "a.b" / ".zarray").write_text(json.dumps(told | {"compressor": {"id": packed, "level": 1}}))
    (tmp_path / "w" / "a.b" / "0").write_bytes(BOMBS[packed]())
    table = orbax_folder.read(tmp_path / "w").table
    before = peak_memory.start()
    with pytest.raises(VitportError, match=r"w is damaged at a/b \(.*End of data expected"):
        table["a/b"]
    assert peak_memory.taken(before) < 40 << 20
