"""Data sets that strangers made to hang a reader or to fill memory, or by mistake: one sentence, at a bounded cost.

Oracles: what each file claims, beside what it holds; the process's own peak of memory.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from pyarrow import parquet

from tests import peak_memory
from tests.vit_jax.training.data.folders import encoded, image_folder, smooth_image
from vit_jax.training.data import evaluation_batches, open_source
from vit_jax.training.data.sources.parquet_pages import unpacked_sizes
from vit_jax.training.data.sources.protobuf import varint
from vit_spec import Preprocessing, VitportError

pytestmark = pytest.mark.jax_alone

FILES = [encoded(smooth_image(number)) for number in range(4)]
_MOST = 300 << 20
"""Bytes of Python's memory that a refusal may take."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def _refused(path: Path) -> str:
    """The sentence."""
    tracemalloc.start()
    try:
        with pytest.raises(VitportError) as caught:
            open_source(str(path), "train")
        assert tracemalloc.get_traced_memory()[1] < _MOST
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    return str(caught.value)


def _evaluated(path: Path) -> tuple[int, dict[str, str]]:
    """How many images can be read, and the sentences of the others by their names."""
    source = open_source(str(path), "train")
    assert source is not None
    with evaluation_batches(source, Preprocessing(size=(8, 8)), batch=4) as batches:
        read = sum(int(batch["weight"].sum()) for batch in batches)
        return read, {Path(name).name: reason for name, reason in batches.corrupt.items()}


def _shard(folder: Path, *extra: tuple[str, bytes]) -> Path:
    """Four images of two classes, and more members."""
    folder.mkdir()
    usual = [(f"{k}.png", data) for k, data in enumerate(FILES)] + [(f"{k}.cls", b"%d" % (k % 2)) for k in range(4)]
    with tarfile.open(folder / "train-0.tar", "w") as tar:
        for name, data in (*usual, *extra):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return folder


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (b"999999999999", "has the label 999999999999, and no list of classes"),
        (b"1000000", "has the label 1000000, and no list of classes, without which labels go up to 999999"),
        (b"9" * 40, "give labels from 0, of at most 18 digits"),
        ("²".encode(), "has the label '²': give labels from 0"),
        (b"7" * 5000, "has 5,000 bytes, and at most 4,096 are read"),
        (b"\xff", "cannot be read"),
    ],
)
def test_labels_that_no_data_set_has(label, sentence, tmp_path) -> None:
    assert sentence in _refused(_shard(tmp_path / "tar", ("4.png", FILES[0]), ("4.cls", label)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b'{"label": {"a": 1}}', "has a dict as its label"),
        (b'{"label": NaN}', "has a float as its label"),
        (b'{"label": true}', "has a bool as its label"),
        (b'{"label": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_facts_about_an_image_that_are_no_label(text, sentence, tmp_path) -> None:
    assert sentence in _refused(_shard(tmp_path / "tar", ("4.png", FILES[0]), ("4.json", text)))


@pytest.mark.parametrize("kind", [b"0", b"x", b"L", b"S", b"g"])
@pytest.mark.parametrize(
    "size", [b"%011o\0" % (6 << 30), b"\x80" + (2**60).to_bytes(11, "big"), b"\xff" * 10 + b"\xfe\0"]
)
def test_members_that_claim_more_than_there_is_or_less_than_nothing(kind, size, tmp_path) -> None:
    path = _shard(tmp_path / "tar") / "train-0.tar"
    data = bytearray(path.read_bytes())
    data[124:136], data[156:157], data[148:156] = size, kind, b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    assert "cannot be read as a tar file" in _refused(path.parent)


def test_links_devices_and_pipes_in_a_tar_file_are_ignored_and_names_lead_nowhere(tmp_path) -> None:
    """Nothing is unpacked: an image has its place in the shard, whatever it is called."""
    outside = (("/etc/x.png", FILES[0]), ("/etc/x.cls", b"0"), ("../../y.png", FILES[1]), ("../../y.cls", b"1"))
    path = _shard(tmp_path / "tar", *outside)
    with tarfile.open(path / "train-0.tar", "a") as tar:
        for at, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(f"link{at}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert _evaluated(path) == (6, {})


def _idx(folder: Path, images: bytes, suffix: str = "") -> Path:
    folder.mkdir()
    (folder / f"train-images-idx3-ubyte{suffix}").write_bytes(images)
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 4) + bytes([0, 1, 0, 1]))
    return folder


def test_a_gzip_file_that_unpacks_to_more_than_its_head_states(tmp_path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(struct.pack(">4B3I", 0, 0, 8, 3, 4, 10, 10)) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    path = _idx(tmp_path / "idx", head + zeros * 512, ".gz")  # 8 GiB
    assert "holds more bytes than the 400 that its head states" in _refused(path)


@pytest.mark.parametrize(
    ("images", "suffix", "sentence"),
    [
        (struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "", "would unpack to"),
        (gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 8, 2**15, 2**15)), ".gz", "would unpack to"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 4, 0, 10), "", "has images without pixels"),
        (b"", "", "is not an IDX file"),
        (b"abc", ".gz", "cannot be read"),
    ],
    ids=["huge", "unpacked", "no-pixels", "empty", "no-gzip"],
)
def test_idx_files_that_state_what_cannot_be(images, suffix, sentence, tmp_path) -> None:
    assert sentence in _refused(_idx(tmp_path / "idx", images, suffix))


IMAGES = pyarrow.array([{"bytes": data, "path": "x"} for data in FILES])


def _parquet(folder: Path, **columns: object) -> Path:
    folder.mkdir()
    table = pyarrow.table({"image": IMAGES, "label": pyarrow.array([0, 1, 0, 1]), **columns})
    parquet.write_table(table, folder / "train-0.parquet", compression="zstd")
    return folder


@pytest.mark.parametrize(
    "description",
    [
        b"null", b"[]", b"{", b"\xff", b"[" * 50_000, b'{"info": 5}', b'{"info": {"features": [1]}}',
        b'{"info": {"features": {"image": 3}}}',
    ],
)  # fmt: skip
def test_a_table_that_describes_itself_in_other_forms(description, tmp_path) -> None:
    path = _parquet(tmp_path / "table") / "train-0.parquet"
    parquet.write_table(parquet.read_table(path).replace_schema_metadata({b"huggingface": description}), path)
    assert "describes itself" in _refused(path.parent)


@pytest.mark.parametrize("names", [b"5", b"[1, 2]", b'{"0": "a"}'])
def test_a_table_whose_classes_have_no_names(names, tmp_path) -> None:
    path = _parquet(tmp_path / "table") / "train-0.parquet"
    description = b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": %s}}}}' % names
    parquet.write_table(parquet.read_table(path).replace_schema_metadata({b"huggingface": description}), path)
    assert "describes classes that are not a list of names" in _refused(path.parent)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"image": pyarrow.nulls(4)}, "and no bytes of image files"),
        ({"image": pyarrow.array([1, 2, 3, 4])}, "and no bytes of image files"),
        ({"image": pyarrow.array([[1]] * 4)}, "and no bytes of image files"),
        ({"label": pyarrow.array([0.0, 1.0, 0.5, 1.0])}, "has double in the column label"),
        ({"label": pyarrow.array([{"a": 1}] * 4)}, "give numbers or names as labels"),
        ({"label": pyarrow.array([0, 1, None, 1])}, "has rows without a label"),
        ({"label": pyarrow.array([0, 1, 0, 2**64 - 1], pyarrow.uint64())}, "has the label 18446744073709551615"),
        ({"label": pyarrow.array([0, 1, 0, 10**12])}, "has the label 1000000000000, and no list of classes"),
    ],
)
def test_columns_that_hold_something_else(columns, sentence, tmp_path) -> None:
    assert sentence in _refused(_parquet(tmp_path / "table", **columns))


def test_equal_values_that_are_stored_once_and_unpacked_each(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("conversion.containers.file_checks._ALWAYS_ALLOWED", 1 << 20)
    assert "would unpack to" in _refused(_parquet(tmp_path / "table", image=pyarrow.array([bytes(500_000)] * 4)))


def test_the_pages_of_a_table_count_and_not_what_its_index_says_of_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("conversion.containers.file_checks._ALWAYS_ALLOWED", 1 << 20)
    images = pyarrow.array([bytes(500_000 + at) for at in range(4)])
    path = _parquet(tmp_path / "table", image=images) / "train-0.parquet"
    column = parquet.ParquetFile(path).metadata.row_group(0).column(0)
    with path.open("rb") as file:
        (found,) = unpacked_sizes(file, parquet.ParquetFile(path).metadata, [0], ["image"])
    assert found == pytest.approx(2_000_006 + 4 * 4, abs=32)  # with lengths; levels. Measured: 10
    told = _zigzag(column.total_uncompressed_size)
    data = path.read_bytes()
    assert data.count(told) == 1
    path.write_bytes(data.replace(told, b"\x82" + b"\x80" * (len(told) - 2) + b"\x00"))  # 1, in as many bytes
    assert parquet.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 1
    assert "would unpack to" in _refused(path.parent)


def _zigzag(number: int) -> bytes:
    """A number as Thrift's compact protocol writes it."""
    number, digits = number * 2, b""
    while number > 127:
        number, digits = number >> 7, digits + bytes([number & 127 | 128])
    return digits + bytes([number])


def test_columns_that_nobody_asked_for_are_not_unpacked(tmp_path) -> None:
    """A million numbers in the list of one row; their few bytes could stand for billions."""
    path = _parquet(tmp_path / "table", numbers=pyarrow.array([np.zeros(1_000_000, np.int64), [], [], []]))
    assert _evaluated(path) == (4, {})
    (unpacked,) = Path(os.environ["XDG_CACHE_HOME"]).rglob("*.arrow")
    assert unpacked.stat().st_size < 100_000


def test_an_arrow_stream_that_unpacks_to_more_than_a_data_set_can(tmp_path, monkeypatch) -> None:
    """4 MB of zeros in 3 kB, with a lower limit; and one of honest size is read."""
    monkeypatch.setattr("conversion.containers.file_checks._ALWAYS_ALLOWED", 1 << 20)
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    for size, name in ((1_000_000, "bomb"), (1000, "honest")):
        (tmp_path / name).mkdir()
        images = pyarrow.array([*[bytes(size)] * 4, *FILES])
        table = pyarrow.table({"image": images, "label": pyarrow.array([0, 1, 0, 1] * 2).dictionary_encode()})
        with (
            (tmp_path / name / "train-0.arrow").open("wb") as file,
            pyarrow.ipc.new_stream(file, table.schema, options=options) as writer,
        ):
            writer.write_table(table)
    assert "would unpack to 400" in _refused(tmp_path / "bomb")
    assert _evaluated(tmp_path / "honest")[0] == 4


def test_images_that_are_missing_are_told_each(tmp_path) -> None:
    images = pyarrow.array([IMAGES[0].as_py(), None, {"bytes": None, "path": "x"}, {"bytes": b"", "path": "x"}])
    read, told = _evaluated(_parquet(tmp_path / "table", image=images))
    assert read == 1
    assert len(told) == 3


def test_mutants_of_tables_and_records_are_read_or_refused(tmp_path) -> None:
    """A few here; `tests/vit_jax/training/data/test_hostile.py -m slow` tries many."""
    _try_mutants(tmp_path, 3)


@pytest.mark.slow
def test_many_mutants_of_tables_and_records_are_read_or_refused(tmp_path) -> None:
    _try_mutants(tmp_path, 200)


def _try_mutants(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    table = (_parquet(folder / "table") / "train-0.parquet").read_bytes()
    shard = (_shard(folder / "tar") / "train-0.tar").read_bytes()
    idx = gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 4, 10, 10) + bytes(400))
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, pyarrow.schema({"image": IMAGES.type, "label": pyarrow.int64()})) as writer:
        writer.write_table(pyarrow.table({"image": IMAGES, "label": pyarrow.array([0, 1, 0, 1])}))
    originals = {
        "train-0.parquet": table, "train-0.tar": shard, "train-0.arrow": sink.getvalue(),
        "train-images-idx3-ubyte.gz": idx,
    }  # fmt: skip
    before = peak_memory.start()
    for name, original in originals.items():
        for number in range(count):
            damaged = bytearray(original)
            for _ in range(int(rng.integers(1, 9))):
                damaged[rng.integers(len(damaged))] = int(rng.integers(256))
            if rng.integers(4) == 0:
                del damaged[int(rng.integers(len(damaged))) :]
            path = _idx(folder / f"{name}{number}", b"")
            (path / "train-images-idx3-ubyte").unlink()
            if "idx" not in name:
                (path / "train-labels-idx1-ubyte").unlink()
            (path / name).write_bytes(damaged)
            try:
                _evaluated(path)
            except VitportError as error:
                assert str(path) in str(error)
    assert peak_memory.taken(before) < 1 << 30


def _records(folder: Path, change: Callable[[bytes], bytes], *records: bytes, options: str = "group_size:1") -> Path:
    folder.mkdir()
    path = folder / "x-train.array_record"
    writer = ArrayRecordWriter(str(path), options)
    for data in records or FILES:
        writer.write(data)
    writer.close()
    path.write_bytes(change(path.read_bytes()))
    (folder / "classes.txt").write_text("a\nb\n")
    return folder


@pytest.mark.parametrize(
    "change",
    [lambda data: data[: len(data) // 2], lambda data: data[:-1], lambda data: b"", lambda data: b"x" * len(data)],
    ids=["half", "less a byte", "empty", "garbage"],
)
def test_truncated_records(change, tmp_path) -> None:
    assert "is not an ArrayRecord file" in _refused(_records(tmp_path / "records", change))


@pytest.mark.parametrize("codec", ["zstd", "brotli"])
def test_records_that_unpack_to_more_than_images_can_are_not_unpacked(codec, tmp_path) -> None:
    """300 MiB of zeros in 30 kB; the library would take them, however many there are."""
    path = _records(tmp_path / "records", bytes, bytes(300 << 20), options=f"group_size:1,{codec}")
    source = open_source(str(path), "train")
    assert source is not None
    before = peak_memory.start()
    with pytest.raises(VitportError, match=r"A chunk of .* would unpack to 3145\d+, more than weights can"):
        source[0]
    assert peak_memory.taken(before) < 50 << 20


@pytest.mark.parametrize("record", ["list of chunks", "last block"])
def test_a_list_of_records_that_claims_to_unpack_to_more_is_not_unpacked(record, tmp_path) -> None:
    """The library would unpack it when it opens the file. A chunk's fifth number is what it unpacks to."""

    def claim(data: bytes) -> bytes:
        last = len(data) - (1 << 16) + 24  # its records name the place in field 1
        begin, _ = varint(data, data.index(b"\x08", last + 45) + 1)
        at = (last if record == "last block" else begin) + 32
        return data[:at] + struct.pack("<Q", 1 << 40) + data[at + 8 :]

    assert "would unpack to" in _refused(_records(tmp_path / "records", claim))


def test_records_are_found_in_every_compression_and_grouping(tmp_path) -> None:
    """Oracle: what was written; none is checked at another's place."""
    rng = np.random.default_rng(0)
    for number, options in enumerate(
        ("uncompressed,group_size:3", "brotli:6,group_size:1", "zstd:9,group_size:4", "snappy,group_size:2",
         "transpose,group_size:4")
    ):  # fmt: skip
        written = [rng.bytes(int(rng.integers(1, 40_000))) for _ in range(25)]
        path = _records(tmp_path / str(number), bytes, *written, options=options)
        source: Any = open_source(str(path), "train")
        (chunks,) = source.chunks
        assert len(source) == 25
        assert chunks.group == int(options[-1])
        assert len(chunks.begins) == -(-25 // chunks.group)
        for at in range(25):
            chunks.check(at)
            assert source.files[0][at] == written[at]


def _png(width: int, height: int) -> bytes:
    """A head of such a size, and ten kB of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("error")
def test_image_folders_with_pipes_devices_bombs_and_links_in_circles(tmp_path) -> None:
    folder = image_folder(tmp_path / "images", count=2)
    os.mkfifo(folder / "ant" / "pipe.jpg")
    (folder / "ant" / "zero.jpg").symlink_to("/dev/zero")
    (folder / "ant" / "nowhere.jpg").symlink_to("/nowhere")
    for number in range(6):
        (folder / "bee" / f"circle{number}").symlink_to("..")
    (folder / "bee" / "sparse.jpg").touch()
    os.truncate(folder / "bee" / "sparse.jpg", 1 << 40)
    (folder / "cat" / "bomb.png").write_bytes(_png(60_000, 60_000))
    (folder / "cat" / "large.png").write_bytes(_png(10_000, 9_500))
    (folder / "cat" / "cut.jpg").write_bytes(encoded(smooth_image(1, (200, 300)), "JPEG")[:900])
    (folder / "cat" / "empty.jpg").touch()
    source = open_source(str(folder), "train")
    assert source is not None
    told = {}
    for at in range(len(source)):
        try:
            source[at]
        except (VitportError, OSError) as error:
            told[str(error)] = at
    assert len(told) == 4 + 3  # by way of bee, ant's are found again, once
    for bad in ("bomb.png", "large.png", "cut.jpg", "empty.jpg"):
        alone = tmp_path / bad
        image_folder(alone, count=2)
        (folder / "cat" / bad).rename(alone / "cat" / bad)
        read, sentences = _evaluated(alone)
        assert read == 6
        assert list(sentences) == [bad]


_PIPES = ("train-images-idx3-ubyte", "train-0.tar", "train-0.parquet", "train-0.arrow", "x-train.array_record")


@pytest.mark.parametrize("name", _PIPES)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name, tmp_path) -> None:
    folder = tmp_path / "data"
    if "idx" in name:
        _idx(folder, b"")
    elif "record" in name:
        _records(folder, bytes)
    folder.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert "not a regular file" in _refused(folder)


def test_a_pipe_in_the_place_of_a_list_of_classes_is_no_list(tmp_path) -> None:
    folder = _records(tmp_path / "data", bytes)
    (folder / "classes.txt").unlink()
    os.mkfifo(folder / "classes.txt")
    assert "has no classes.txt" in _refused(folder)
