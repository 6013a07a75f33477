"""Data in a bucket give the batches of the same files on a disk, in the same order."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import threading

import numpy as np
import pyarrow
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from pyarrow import parquet

from conversion.store import Objects, put
from conversion.store.objects import LARGE
from tests.stores import running
from tests.vit_jax.training.data.folders import EXAMPLE, encoded, image_folder, smooth_image
from vit_jax.training.background import Background
from vit_jax.training.data import Data, Stream, open_sources
from vit_jax.training.data.sources import ranges, records_in_bucket, row_groups
from vit_jax.training.data.sources.kept import Kept
from vit_jax.training.data.sources.tar import TarShards
from vit_spec import Preprocessing, VitportError

PREPROCESSING = Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(params=["gs", "s3"])
def store(request, monkeypatch, tmp_path):
    with running(request.param, monkeypatch, tmp_path / "cache") as found:
        yield found


def _batches(path: str, **options: object) -> list[dict[str, np.ndarray]]:
    data = Data(path, **options)  # type: ignore[arg-type]
    train, _ = open_sources(data)
    with Stream(train, data, PREPROCESSING, batch=6, rows=range(6), seed=3) as stream:
        return [next(stream) for _ in range(5)]


def _same(path: str, disk: str, **options: object) -> None:
    for one, other in zip(_batches(path, **options), _batches(disk, **options), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        assert one["weight"].all()


def _shards(folder) -> None:
    """Three shards, two of them of training images; one image is longer than what is read at a time."""
    import io
    import tarfile

    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir()
    for number, split in enumerate(("train", "train", "val")):
        with tarfile.open(folder / f"{split}-{number}.tar", "w") as tar:
            for at in range(7):
                side = 700 if (number, at) == (1, 3) else 20
                image = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (side, side + 5, 3), np.uint8)).save(image, "png")
                for suffix, content in ((".png", image.getvalue()), (".cls", str(at % 3).encode())):
                    member = tarfile.TarInfo(f"{number}{at}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("small", [0, 10**9])
def test_tar_shards_are_read_in_place(store, small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ranges, "SMALL", small)
    _shards(tmp_path / "shards")
    put(tmp_path / "shards", f"{store.address}/shards", overwrite=False)
    _same(f"{store.address}/shards", str(tmp_path / "shards"))
    _same(f"{store.address}/shards/train-{{0..1}}.tar", str(tmp_path / "shards" / "train-{0..1}.tar"), holdout=0.3)
    train, validation = open_sources(Data(f"{store.address}/shards"))
    assert validation is not None
    assert (len(train), len(validation)) == (14, 7)
    assert not list((tmp_path / "cache").rglob("*.tar"))
    with pytest.raises(VitportError, match="does not exist"):
        open_sources(Data(f"{store.address}/nothing"))


def test_shards_in_folders_come_in_the_order_of_the_disk(google_store, tmp_path) -> None:
    """Folder by folder, where addresses alone would give a-b before a."""
    _shards(tmp_path / "made")
    for number, name in enumerate(("a/0", "a-b/0")):
        (tmp_path / "shards" / name).parent.mkdir(parents=True)
        (tmp_path / "made" / f"train-{number}.tar").rename(tmp_path / "shards" / f"{name}.tar")
    put(tmp_path / "shards", f"{google_store.address}/shards", overwrite=False)
    sources = [open_sources(Data(path))[0] for path in (f"{google_store.address}/shards", str(tmp_path / "shards"))]
    assert _bytes(sources[0]) == _bytes(sources[1])


def _reads(objects: Objects) -> list[str]:
    """Names of what is read from now on, by ranges of more than one byte."""
    read: list[str] = []
    real = objects.read_all

    def noted(wanted):
        asked = list(wanted)
        read.extend(name for name, of in asked if of is not None and of.stop - of.start > 1)
        return real(asked)

    objects.read_all = noted
    return read


def _shards_in(store, tmp_path) -> str:
    if not (tmp_path / "shards").exists():
        _shards(tmp_path / "shards")
    put(tmp_path / "shards", f"{store.address}/shards", overwrite=True)
    return f"{store.address}/shards"


def _opened(address: str, folder, limit: int = 10**9) -> tuple[TarShards, list[str]]:
    train, _ = open_sources(Data(address, cache=str(folder), cache_limit=limit))
    assert isinstance(train, TarShards)
    assert train.ranges is not None
    return train, _reads(train.ranges.objects)


def _bytes(source) -> list[bytes]:
    return [source[at].image for at in range(len(source))]


@pytest.fixture
def google_store(tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "SMALL", 0)
    with running("gs", monkeypatch, tmp_path / "cache") as found:
        yield found


def test_a_cache_keeps_images_of_shards_on_the_disk(google_store, tmp_path) -> None:
    """Read once, then from the disk, also by another process; a new version of the shards is read anew."""
    address, kept = _shards_in(google_store, tmp_path), tmp_path / "kept"
    expected = _bytes(open_sources(Data(str(tmp_path / "shards")))[0])
    first, read = _opened(address, kept)
    assert _bytes(first) == expected
    assert len(read) == len(expected) == 14
    assert _bytes(first) == expected
    assert _bytes(pickle.loads(pickle.dumps(first))) == expected  # noqa: S301
    again, read_again = _opened(address, kept)
    assert _bytes(again) == expected
    assert len(read) == 14
    assert read_again == []
    _shards_in(google_store, tmp_path)
    later, read_later = _opened(address, kept)
    assert _bytes(later) == expected
    assert len(read_later) == 14


def test_a_cache_takes_no_more_than_its_limit_and_removes_only_what_nobody_uses(google_store, tmp_path) -> None:
    """Oracle: the sizes of the files. The large image alone does not fit."""
    address, kept = _shards_in(google_store, tmp_path), tmp_path / "kept"
    (tmp_path / "kept" / "mine").mkdir(parents=True)
    sizes = sorted(map(len, _bytes(open_sources(Data(str(tmp_path / "shards")))[0])))
    limit = sizes[-1] - 1
    first, read = _opened(address, kept, limit)
    assert _bytes(first) == _bytes(first)
    assert 14 < len(read) < 28
    held = sum(path.stat().st_size for path in kept.rglob("images"))
    assert 0 < held <= limit
    _shards_in(google_store, tmp_path)
    second, read_second = _opened(address, kept, sizes[0])
    assert _bytes(second) == _bytes(second)
    assert len(read_second) == 28  # the first set is in use, and fills it
    del first, second
    third, read_third = _opened(address, kept, sum(sizes))
    assert _bytes(third) == _bytes(third)
    assert len(read_third) == 14
    assert sum(path.stat().st_size for path in kept.rglob("images")) <= sum(sizes)
    assert (kept / "mine").is_dir()


@pytest.mark.parametrize("damage", ["images", "places"])
def test_a_damaged_cache_is_read_around(damage, google_store, tmp_path) -> None:
    address, kept = _shards_in(google_store, tmp_path), tmp_path / "kept"
    first, _ = _opened(address, kept)
    expected = _bytes(first)
    (file,) = kept.rglob(f"*-14/{damage}")
    content = bytearray(file.read_bytes())
    content[30] ^= 1
    file.write_bytes(content)
    again, read = _opened(address, kept)
    assert _bytes(again) == expected
    assert len(read) == 1


def test_a_system_without_locks_keeps_no_images_and_is_told(google_store, tmp_path, monkeypatch) -> None:
    """As Windows; row groups are unpacked there too."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(VitportError, match="Files cannot be locked on this system"):
        _opened(_shards_in(google_store, tmp_path), tmp_path / "kept")
    _tables(tmp_path / "tables")
    put(tmp_path / "tables", f"{google_store.address}/tables", overwrite=False)
    _same(f"{google_store.address}/tables", str(tmp_path / "tables"))


def test_a_cache_of_what_lies_on_the_disk_is_refused(tmp_path) -> None:
    with pytest.raises(VitportError, match="is for data in a bucket, and digits is not"):
        open_sources(Data("digits", cache=str(tmp_path)))
    (tmp_path / "file").write_text("")
    with pytest.raises(VitportError, match="cannot be written"):
        Kept(str(tmp_path / "file"), 10, "0" * 32, 3)


def test_an_image_folder_is_read_in_place(store, tmp_path) -> None:
    """Splits, folders within classes, and files that are no images, as on the disk; each image is asked for once."""
    photos = tmp_path / "photos"
    image_folder(photos / "train")
    image_folder(photos / "val", count=2)
    (photos / "train" / "bee" / "ü b").mkdir()
    (photos / "train" / "bee" / "ü b" / "1.PNG").write_bytes(encoded(smooth_image(7)))
    (photos / "train" / "bee" / ".hidden.png").write_bytes(b"")
    (photos / "train" / "notes.txt").write_text("none")
    put(photos, f"{store.address}/photos", overwrite=False)
    _same(f"{store.address}/photos", str(photos))
    _same(f"{store.address}/photos/", str(photos), validation=f"{store.address}/photos/val")
    here, there = open_sources(Data(str(photos))), open_sources(Data(f"{store.address}/photos"))
    for one, other in zip(here, there, strict=True):
        assert one is not None
        assert other is not None
        assert other.classes == one.classes
        records = [(other[at], one[at]) for at in range(len(one))]
        assert all((it.label, it.image) == (own.label, own.image) for it, own in records)
        below = [it.name.removeprefix(store.address) for it, _ in records]
        assert below == [own.name.removeprefix(str(tmp_path)) for _, own in records]
    assert len(there[0]) == 25
    reads = _whole_reads(there[0].files.objects)
    copied = pickle.loads(pickle.dumps(there[0]))  # noqa: S301
    assert _bytes(copied) == _bytes(there[0]) == _bytes(here[0])
    assert len(reads) == 25
    assert not list((tmp_path / "cache").rglob("*.png"))
    Objects(f"{store.address}/photos/train").delete(["ant/003.png"])
    with pytest.raises(VitportError, match=r"train/ant/003.png was deleted"):
        _bytes(there[0])


def _whole_reads(objects: Objects) -> list[str]:
    """Names of what is read whole from now on."""
    read: list[str] = []
    real = objects.read
    objects.read = lambda name: (read.append(name), real(name))[1]
    return read


def test_folders_that_hold_no_classes_are_refused_in_a_bucket_too(store, tmp_path) -> None:
    put(image_folder(tmp_path / "a"), f"{store.address}/a/train/all", overwrite=False)
    put(image_folder(tmp_path / "b", classes=("x",)) / "x", f"{store.address}/b/train", overwrite=False)
    put(image_folder(tmp_path / "c", classes=("x",)) / "x", f"{store.address}/b/val", overwrite=False)
    with pytest.raises(VitportError, match=r"gs://.*/a/train must have 2 classes|s3://.*/a/train must have 2 classes"):
        open_sources(Data(f"{store.address}/a"))
    with pytest.raises(VitportError, match=r"holds train/ and val/, which are splits of a data set, not classes"):
        open_sources(Data(f"{store.address}/b"))


@pytest.mark.parametrize("where", ["beside", "elsewhere", "here"])
def test_a_table_of_labels_may_lie_in_a_bucket_with_its_images_or_elsewhere(where, store, tmp_path) -> None:
    photos = image_folder(tmp_path / "photos", classes=("train_images",))
    table = photos / "train.csv"
    table.write_text("id,label\n" + "".join(f"{at:03},{at % 3}\n" for at in range(8)))
    (photos / "classes.txt").write_text("ant\nbee\ncat\n")
    put(photos, f"{store.address}/photos", overwrite=False)
    put(table, f"{store.address}/lists/train.csv", overwrite=False)
    labels = {"beside": "train.csv", "elsewhere": f"{store.address}/lists/train.csv", "here": str(table)}[where]
    _same(f"{store.address}/photos", str(photos), labels=labels)
    train, _ = open_sources(Data(f"{store.address}/photos", labels=labels))
    assert train.classes == ("ant", "bee", "cat")
    assert train[4].name == f"{store.address}/photos/train_images/004.png"
    assert not list((tmp_path / "cache").rglob("*.png"))
    with pytest.raises(VitportError, match=r"none.csv does not exist"):
        open_sources(Data(f"{store.address}/photos", labels=f"{store.address}/none.csv"))
    with pytest.raises(VitportError, match="is not a folder of images"):
        open_sources(Data(f"{store.address}/photos/train.csv", labels=labels))


def test_a_cache_keeps_images_of_folders_too(google_store, tmp_path) -> None:
    photos, address = image_folder(tmp_path / "photos"), f"{google_store.address}/photos"
    put(photos, address, overwrite=False)
    options = Data(address, cache=str(tmp_path / "kept"))
    for expected in (24, 0):
        train, _ = open_sources(options)
        reads = _whole_reads(train.files.objects)
        assert _bytes(train) == _bytes(train) == _bytes(open_sources(Data(str(photos)))[0])
        assert len(reads) == expected
    put(photos / "ant" / "000.png", f"{address}/bee/000.png", overwrite=True)
    assert _bytes(open_sources(options)[0])[8] == (photos / "ant" / "000.png").read_bytes()


def _tables(folder) -> list[int]:
    """Parquet files of row groups of two images, beside a column that nobody needs; bytes of the images in each."""
    folder.mkdir()
    found = []
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        images = [{"bytes": encoded(smooth_image(10 * number + at)), "path": f"{at}.png"} for at in range(7)]
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ant", "bee", "cat"]}}
        rows = pyarrow.table({"notes": [bytes(50_000)] * 7, "image": images, "label": [at % 3 for at in range(7)]})
        rows = rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        parquet.write_table(rows, folder / f"{name}.parquet", row_group_size=2, compression=None, use_dictionary=False)
        metadata = parquet.read_metadata(folder / f"{name}.parquet")
        for group in (metadata.row_group(at) for at in range(metadata.num_row_groups)):
            columns = [group.column(at) for at in range(group.num_columns)]
            of_images = (it.total_compressed_size for it in columns if it.path_in_schema.startswith("image."))
            found += [sum(of_images)] if name.startswith("train") else []
    return found


def test_row_groups_of_parquet_files_are_read_in_place(store, tmp_path, monkeypatch) -> None:
    """Their labels at the start, the images of each row group once, and nothing else."""
    sizes = _tables(tmp_path / "tables")
    address, disk = f"{store.address}/tables", str(tmp_path / "tables")
    put(tmp_path / "tables", address, overwrite=False)
    here, there = open_sources(Data(disk)), open_sources(Data(address))
    for one, other in zip(here, there, strict=True):
        assert one is not None
        assert other is not None
        assert other.classes == one.classes == ("ant", "bee", "cat")
        assert [other[at].label for at in range(7)] == [one[at].label for at in range(7)]
        assert _bytes(other) == _bytes(one)
        assert [other[at].name.removeprefix(address) for at in range(7)] == [
            one[at].name.removeprefix(disk) for at in range(7)
        ]
    shutil.rmtree(tmp_path / "cache" / "vitport" / "parquet")
    asked = _asked(monkeypatch)
    train, _ = open_sources(Data(address))
    assert sum(asked) == 0  # what was found of this version is kept
    assert _bytes(train) == _bytes(here[0]) == _bytes(train)
    assert sorted(filter(None, asked)) == sorted(sizes)
    assert len(_bytes(pickle.loads(pickle.dumps(train)))) == 14  # noqa: S301
    assert len([*filter(None, asked)]) == len(sizes)
    _same(f"{address}/train-{{00000..00001}}-of-00002.parquet", f"{disk}/train-{{00000..00001}}-of-00002.parquet")
    put(tmp_path / "tables" / "test-00000-of-00001.parquet", f"{address}/train-00001-of-00002.parquet", overwrite=True)
    assert _bytes(open_sources(Data(address))[0])[7:] == _bytes(here[1])
    Objects(address).delete(["train-00001-of-00002.parquet"])
    with pytest.raises(VitportError, match=r"train-00001-of-00002.parquet is missing"):
        open_sources(Data(address))


def test_a_process_holds_no_more_row_groups_than_it_may(google_store, tmp_path, monkeypatch) -> None:
    """A batch of all images asks for all at once; each answer takes a while."""
    _tables(tmp_path / "tables")
    put(tmp_path / "tables", f"{google_store.address}/tables", overwrite=False)
    data = Data(f"{google_store.address}/tables")
    train, _ = open_sources(data)
    monkeypatch.setattr(row_groups, "_turns", threading.BoundedSemaphore(2))
    real, held, most = row_groups._unpack, threading.Semaphore(8), []

    def noted(*given):
        with held:
            most.append(8 - held._value)
            real(*given)

    monkeypatch.setattr(row_groups, "_unpack", noted)
    google_store.delay = 0.02
    with Stream(train, data, PREPROCESSING, batch=14, rows=range(14), seed=3) as stream:
        assert next(stream)["weight"].all()
    assert len(most) == 8
    assert max(most) <= 2


@pytest.mark.slow
def test_worker_processes_read_row_groups_and_records_in_place(google_store, tmp_path) -> None:
    _tables(tmp_path / "tables")
    _records(tmp_path / "records", "group_size:1")
    for name in ("tables", "records"):
        put(tmp_path / name, f"{google_store.address}/{name}", overwrite=False)
        _same(f"{google_store.address}/{name}", str(tmp_path / name), workers=2)


def _asked(monkeypatch) -> list[int]:
    """Bytes of each group of requests for ranges from now on, those for versions aside."""
    sizes: list[int] = []
    real = Objects.read_all

    def noted(self, wanted):
        ranges = list(wanted)
        sizes.append(sum(of.stop - of.start for _, of in ranges if of is not None))
        return real(self, ranges)

    monkeypatch.setattr(Objects, "read_all", noted)
    return sizes


def test_a_large_row_group_is_asked_for_in_parts_and_a_damaged_one_is_skipped(
    google_store, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(row_groups, "_PART", 300)
    _tables(tmp_path / "tables")
    path = tmp_path / "tables" / "train-00000-of-00002.parquet"
    begin = parquet.read_metadata(path).row_group(1).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + 8] = bytes(8)
    path.write_bytes(content)
    address = f"{google_store.address}/tables"
    put(tmp_path / "tables", address, overwrite=False)
    data = Data(address)
    train, _ = open_sources(data)
    with Stream(train, data, PREPROCESSING, batch=14, rows=range(14), seed=3) as stream:
        batch = next(stream)
        lost = [int(name.partition("[")[2].partition("]")[0]) for name in stream.corrupt]
    assert sorted(lost) == [2, 3]
    assert batch["weight"].sum() == 12


def _records(folder, options: str) -> list[bytes]:
    """Two files of training examples, one of others, each written as protobuf does; the first file's records."""
    folder.mkdir()
    (folder / "label.labels.txt").write_text("ant\nbee\ncat\n")
    first: list[bytes] = []
    for number, name in enumerate(("train.array_record-00000-of-00002", "train.array_record-00001-of-00002",
                                   "test.array_record-00000-of-00001")):  # fmt: skip
        writer = ArrayRecordWriter(str(folder / f"x-{name}"), options)
        for at in range(7):
            side = 300 if (number, at) == (1, 2) else 20  # longer than a block
            pixels = np.random.default_rng(10 * number + at).integers(0, 256, (side, side + 5, 3), np.uint8)
            example = EXAMPLE()
            example.features.feature["image"].bytes_list.value.append(encoded(pixels))
            example.features.feature["label"].int64_list.value.append(at % 3)
            writer.write(example.SerializeToString())
            first += [example.SerializeToString()] if number == 0 else []
        writer.close()
    return first


@pytest.mark.parametrize(
    "options",
    ["group_size:1", "group_size:3,uncompressed", "transpose,group_size:1", "transpose,group_size:4,brotli:3"],
)
def test_array_records_are_read_in_place(options, google_store, tmp_path, monkeypatch) -> None:
    """Each chunk by a request of its own, once where it holds several records, whoever asks for them."""
    monkeypatch.setattr(ranges, "SMALL", 0)
    _records(tmp_path / "records", options)
    address, disk = f"{google_store.address}/records", str(tmp_path / "records")
    put(tmp_path / "records", address, overwrite=False)
    here, there = open_sources(Data(disk)), open_sources(Data(address))
    asked = _asked(monkeypatch)
    for one, other in zip(here, there, strict=True):
        assert one is not None
        assert other is not None
        assert other.classes == one.classes == ("ant", "bee", "cat")
        assert [other[at].label for at in range(7)] == [one[at].label for at in range(7)]
        assert _bytes(pickle.loads(pickle.dumps(other))) == _bytes(one)  # noqa: S301
    whole = sum(path.stat().st_size for path in (tmp_path / "records").glob("*record-*"))
    assert sum(asked) < 2.1 * whole  # each file's last block, of 64 KiB, is asked for with its list
    _same(address, disk)
    assert not list((tmp_path / "cache").rglob("*record-*"))


@pytest.mark.parametrize("limit", ["SMALL", "_MOST"])
def test_array_records_that_are_small_or_have_a_huge_chunk_are_copied(
    limit, google_store, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(ranges, "SMALL", 10**9 if limit == "SMALL" else 0)
    monkeypatch.setattr(records_in_bucket, "_MOST", 100)
    _records(tmp_path / "records", "group_size:2")
    put(tmp_path / "records", f"{google_store.address}/records", overwrite=False)
    _same(f"{google_store.address}/records", str(tmp_path / "records"))
    assert len(list((tmp_path / "cache").rglob("*record-*"))) == 3


@pytest.mark.parametrize("options", ["group_size:1,uncompressed", "group_size:3", "transpose,group_size:1"])
def test_a_flipped_bit_of_a_record_is_found(options, google_store, tmp_path, monkeypatch) -> None:
    """By the checksums of chunks, wherever the bit is; without them, pixels that are not compressed would be taken."""
    monkeypatch.setattr(ranges, "SMALL", 0)
    _records(tmp_path / "records", options)
    path = tmp_path / "records" / "x-train.array_record-00000-of-00002"
    source, _ = open_sources(Data(str(tmp_path / "records")))
    begins = [*source.chunks[0].begins.tolist(), path.stat().st_size - 65536]
    content = path.read_bytes()
    objects, name = Objects.holding(f"{google_store.address}/records/{path.name}")
    put(tmp_path / "records", objects.address, overwrite=False)
    for at in (begins[0] + 2, begins[0] + 18, (begins[0] + begins[1]) // 2):  # hashes of head and data; data
        objects.write(name, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        train, _ = open_sources(Data(objects.address))
        with pytest.raises(VitportError, match=r"is not a tf\.train\.Example"):
            train[0]
        assert train[7].image == source[7].image


def test_a_damaged_record_is_skipped_and_a_cache_keeps_the_others(google_store, tmp_path, monkeypatch) -> None:
    """A flipped bit in a chunk's head; the rest of the file is read."""
    monkeypatch.setattr(ranges, "SMALL", 0)
    _records(tmp_path / "records", "group_size:1,uncompressed")
    path = tmp_path / "records" / "x-train.array_record-00000-of-00002"
    source, _ = open_sources(Data(str(tmp_path / "records")))
    content = bytearray(path.read_bytes())
    content[int(source.chunks[0].begins[3]) + 24] ^= 1
    path.write_bytes(content)
    address = f"{google_store.address}/records"
    put(tmp_path / "records", address, overwrite=False)
    train, _ = open_sources(Data(address, cache=str(tmp_path / "kept")))
    for _ in range(2):
        for at in {*range(14)} - {3}:
            assert train[at].image == source[at].image
        with pytest.raises(VitportError, match=r"\[3\] is not a tf.train.Example"):
            train[3]
    assert train.kept.read(5) is not None
    for name in ("x-train.array_record-00000-of-00002", "x-test.array_record-00000-of-00001"):
        (tmp_path / "records" / name).write_bytes(b"x" * 70_000)
    put(tmp_path / "records", f"{google_store.address}/other", overwrite=False)
    with pytest.raises(VitportError, match="not an ArrayRecord file"):
        open_sources(Data(f"{google_store.address}/other"))
    Objects(address).delete(["label.labels.txt"])
    with pytest.raises(VitportError, match=r"has no classes.txt"):
        open_sources(Data(address))


def test_what_the_store_refuses_ends_the_run_and_is_no_damaged_image(google_store, tmp_path) -> None:
    """Else the run would go on without the images that it could not reach."""
    put(image_folder(tmp_path / "photos"), f"{google_store.address}/photos", overwrite=False)
    data = Data(f"{google_store.address}/photos")
    train, _ = open_sources(data)
    google_store.refused = "photos/bee/003.png"
    stream = Stream(train, data, PREPROCESSING, batch=24, rows=range(24), seed=3)
    with stream, pytest.raises(VitportError, match=r"is refused .*PERMISSION_DENIED"):
        next(stream)


@pytest.mark.parametrize("part", [LARGE, 1000])
def test_other_files_are_copied_once(part, store, tmp_path, monkeypatch) -> None:
    """Whole, or in parts where they are large; and only up to a limit, which an error names."""
    monkeypatch.setattr("conversion.store.objects.LARGE", part)
    monkeypatch.setattr("conversion.store.fetch.LARGE", part)
    rng = np.random.default_rng(0)
    arrays = {"images": rng.integers(0, 256, (9, 20, 26, 3), np.uint8), "labels": np.arange(9) % 3}
    np.savez(tmp_path / "arrays.npz", **arrays)
    put(tmp_path / "arrays.npz", f"{store.address}/arrays.npz", overwrite=False)
    _same(f"{store.address}/arrays.npz", str(tmp_path / "arrays.npz"))
    copied = sorted((tmp_path / "cache").rglob("*.npz"))
    _batches(f"{store.address}/arrays.npz")
    assert sorted((tmp_path / "cache").rglob("*.npz")) == copied
    assert len(copied) == 1
    put(tmp_path / "arrays.npz", f"{store.address}/more.npz", overwrite=False)
    size = (tmp_path / "arrays.npz").stat().st_size
    with pytest.raises(VitportError, match=rf"has more than the {size - 1:,} bytes that are copied .*cache-limit"):
        open_sources(Data(f"{store.address}/more.npz", cache_limit=size - 1))
    assert sorted((tmp_path / "cache").rglob("*.npz")) == copied
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.mark.parametrize("kind", ["shards", "photos"])
def test_images_of_a_batch_are_asked_for_at_the_same_time(kind, google_store, tmp_path) -> None:
    """One after the other, the four threads that make batches would have four requests under way."""
    made = tmp_path / kind
    _shards(made) if kind == "shards" else image_folder(made)
    put(made, f"{google_store.address}/{kind}", overwrite=False)
    data = Data(f"{google_store.address}/{kind}")
    train, _ = open_sources(data)
    google_store.hold(0)
    with Stream(train, data, PREPROCESSING, batch=30, rows=range(30), seed=3) as stream:
        batch = Background(lambda: next(stream))
        are_asked = google_store.await_stopped(17)
        google_store.free()
        assert batch.wait(60)
    assert are_asked
    assert batch.result["weight"].all()
