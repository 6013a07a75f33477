"""Data sets in several files. Oracles: tarfile, pyarrow, array_record's writer and protobuf's own encoder."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from huggingface_hub import constants
from pyarrow import parquet

from tests.vit_jax.training.data.folders import EXAMPLE, encoded, smooth_image
from vit_jax.training.data import Augmentation, Data, Source, Stream, open_source, open_sources
from vit_jax.training.data.sources.shards import expanded, split_files
from vit_jax.training.data.sources.tf_example import features
from vit_spec import Preprocessing, VitportError

pytestmark = pytest.mark.jax_alone

FILES = [encoded(smooth_image(number)) for number in range(7)]
LABELS = [0, 2, 1, 1, 0, 2, 2]
NAMES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def _check(source: Source | None, classes: tuple[str, ...], numbers=range(7)) -> None:
    """Files and labels, after the way to a worker."""
    assert source is not None
    source = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert source.classes == classes
    assert len(source) == len(numbers)
    records = [source[at] for at in range(len(source))]
    assert [record.image for record in records] == [FILES[number] for number in numbers]
    assert [record.label for record in records] == [LABELS[number] for number in numbers]
    assert len({record.name for record in records}) == len(numbers)


def _tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _members(numbers, label=lambda number: {"cls": str(LABELS[number]).encode()}) -> dict[str, bytes]:
    return {
        f"a/{number:04}.{suffix}": data
        for number in numbers
        for suffix, data in ({"png": FILES[number]} | label(number)).items()
    }


def test_tar_shards_are_read_in_order_with_labels_in_cls_files(tmp_path) -> None:
    for shard, numbers in enumerate((range(3), range(3, 7))):
        _tar(tmp_path / f"x-{shard:03}.tar", _members(numbers))
    for path in (tmp_path, tmp_path / "x-{000..001}.tar", tmp_path / "x-*.tar"):
        _check(open_source(str(path), "train"), ("0", "1", "2"))
        assert open_source(str(path), "validation") is None
    _check(open_source(str(tmp_path / "x-001.tar"), "train"), ("0", "1", "2"), range(3, 7))


def test_labels_may_stand_in_json_and_be_names(tmp_path) -> None:
    _tar(tmp_path / "a.tar", _members(range(7), lambda n: {"json": json.dumps({"label": NAMES[LABELS[n]]}).encode()}))
    _check(open_source(str(tmp_path), "train"), NAMES)


def test_numbers_in_tar_shards_get_the_names_of_a_list(tmp_path) -> None:
    _tar(tmp_path / "a.tar", _members(range(7), lambda n: {"json": b'{"width": 1}', "cls": f"{LABELS[n]}\n".encode()}))
    (tmp_path / "classnames.txt").write_text("\n".join(NAMES))
    _check(open_source(str(tmp_path), "train"), NAMES)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(b"ant\n\nbee\ncat\n", "empty line"), (b"\xff\xfe", "not UTF-8 text"), (b"ant\n", "label")],
)
def test_a_list_of_classes_that_is_none_is_refused(text, sentence, tmp_path) -> None:
    """Empty lines at its end are none: with them there would be a class that no image has."""
    _tar(tmp_path / "a.tar", _members(range(7)))
    (tmp_path / "classes.txt").write_bytes(text)
    with pytest.raises(VitportError, match=sentence):
        open_source(str(tmp_path), "train")
    (tmp_path / "classes.txt").write_bytes(b"ant\nbee\ncat\n\n\n")
    _check(open_source(str(tmp_path), "train"), NAMES)


def test_validation_shards_take_their_classes_from_the_training_shards(tmp_path) -> None:
    _tar(tmp_path / "train" / "0.tar", _members(range(7)))
    _tar(tmp_path / "val" / "0.tar", _members([3, 4]))
    train, validation = open_sources(Data(str(tmp_path)))
    _check(train, ("0", "1", "2"))
    _check(validation, ("0", "1", "2"), [3, 4])


def test_splits_are_told_by_words_in_paths() -> None:
    root = Path("/d")
    names = (
        "a/train-00000-of-00002.parquet",
        "a/train-00001-of-00002.parquet",
        "a/test-0.parquet",
        "a/extra-0.parquet",
    )
    files = [root / name for name in names]
    assert split_files(root, files, "train") == files[:2]
    assert split_files(root, files, "validation") == files[2:3]
    files = [root / name for name in ("latest-0.tar", "trained-1.tar", "validation/2.tar", "test/3.tar")]
    assert split_files(root, files, "train") == files[:2]
    assert split_files(root, files, "validation") == files[2:3]


def test_braces_and_stars_are_expanded(tmp_path) -> None:
    for name in ("a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar", "b-1.tar"):
        (tmp_path / name).touch()
    found = [path.name for path in expanded(str(tmp_path / "a-{09..12}.tar"))]
    assert found == ["a-09.tar", "a-10.tar", "a-11.tar"]
    assert [path.name for path in expanded(str(tmp_path / "?-1*.tar"))] == ["a-10.tar", "a-11.tar", "b-1.tar"]


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"a.png": FILES[0]}, "has no label for the key a"),
        ({"a.cls": b"0", "b.png": FILES[0], "b.cls": b"0"}, "has no image for the key a"),
        ({"a.png": FILES[0], "a.jpg": FILES[0], "a.cls": b"0"}, "has two images with the key a"),
        ({"a.png": FILES[0], "a.json": b"{"}, r"a\.json cannot be read"),
        ({"a.png": FILES[0], "a.cls": b"-1", "b.png": FILES[0], "b.cls": b"x"}, None),
        ({}, "has no images"),
        ({"a.png": FILES[0], "a.cls": b"0"}, "must have 2 classes or more; got 0"),
    ],
)
def test_tar_shards_that_are_no_data_set_are_refused(tmp_path, members, sentence) -> None:
    _tar(tmp_path / "a.tar", members)
    if sentence is None:  # then both are names
        source = open_source(str(tmp_path), "train")
        assert source is not None
        assert source.classes == ("-1", "x")
        return
    with pytest.raises(VitportError, match=sentence):
        open_source(str(tmp_path), "train")


def test_damaged_and_compressed_tar_files_are_refused(tmp_path) -> None:
    _tar(tmp_path / "a.tar", _members(range(7)))
    whole = (tmp_path / "a.tar").read_bytes()
    for data in (b"\x1f\x8b" + b"junk" * 300, whole[: len(whole) // 2]):
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(VitportError, match=r"a\.tar cannot be read as a tar file"):
            open_source(str(tmp_path), "train")


def _table(numbers, labels=None, described: bool = True) -> pyarrow.Table:
    """As datasets writes it, its own description included (``datasets.Features.arrow_schema``)."""
    image = pyarrow.array([{"bytes": FILES[n], "path": f"{n}.png"} for n in numbers])
    label = pyarrow.array([LABELS[n] for n in numbers] if labels is None else labels)
    table = pyarrow.table({"image": image, "label": label})
    known = {"image": {"_type": "Image"}, "label": {"names": list(NAMES), "_type": "ClassLabel"}}
    return table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": known}})} if described else None
    )


def test_parquet_files_are_read_with_the_names_that_they_carry(tmp_path) -> None:
    (tmp_path / "data").mkdir()
    parquet.write_table(_table(range(3)), tmp_path / "data" / "train-00000-of-00002.parquet", row_group_size=2)
    parquet.write_table(_table(range(3, 7)), tmp_path / "data" / "train-00001-of-00002.parquet", row_group_size=3)
    parquet.write_table(_table([5]), tmp_path / "data" / "validation-00000-of-00001.parquet")
    train, validation = open_sources(Data(str(tmp_path)))
    _check(train, NAMES)
    _check(validation, NAMES, [5])


def test_a_parquet_file_is_unpacked_once_for_each_version_of_it(tmp_path) -> None:
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "vitport" / "parquet"
    path = tmp_path / "train.parquet"
    for numbers, files in ((range(7), 1), (range(7), 1), ([1, 2, 3], 2), ([1, 2, 3], 3)):
        if files > len(list(cache.glob("*"))):
            parquet.write_table(_table(numbers), path)
            os.utime(path, (files, files))  # as another version of the same size has another time
        _check(open_source(str(path), "train"), NAMES, numbers)
        assert len(list(cache.glob("*"))) == files


def test_labels_of_parquet_files_may_be_plain_numbers_and_texts(tmp_path) -> None:
    parquet.write_table(_table(range(7), described=False), tmp_path / "a.parquet")
    _check(open_source(str(tmp_path), "train"), ("0", "1", "2"))
    parquet.write_table(_table(range(7), [NAMES[label] for label in LABELS], described=False), tmp_path / "a.parquet")
    _check(open_source(str(tmp_path), "train"), NAMES)


def test_folders_of_save_to_disk_are_read_in_place(tmp_path) -> None:
    for split, numbers in (("train", range(7)), ("test", [2, 6])):
        (tmp_path / split).mkdir()
        with pyarrow.ipc.new_stream(tmp_path / split / "data-00000-of-00001.arrow", _table(range(7)).schema) as writer:
            for begin in range(0, len(numbers), 2):
                writer.write_table(_table(numbers[begin : begin + 2]))
    train, validation = open_sources(Data(str(tmp_path)))
    _check(train, NAMES)
    _check(validation, NAMES, [2, 6])


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pyarrow.table({"image": [b"x"], "text": ["y"]}), "has the columns image, text: keep a column called label"),
        (pyarrow.table({"a": [b"x"], "label": [1]}), "keep a column called image"),
        (_table(range(7), [0, 1, 2, None, 0, 0, 0]), "has rows without a label"),
        (_table(range(7), [0, 1, 2, 3, 0, 0, 0]), "has the label 3, and 3 classes: give labels from 0 to 2"),
    ],
)
def test_tables_without_images_or_labels_are_refused(tmp_path, table, sentence) -> None:
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(VitportError, match=sentence):
        open_source(str(tmp_path), "train")


def test_a_row_with_a_path_alone_is_a_corrupt_image(tmp_path) -> None:
    """A table from elsewhere must not make this machine open files of its choice."""
    image = [{"bytes": FILES[0], "path": None}, {"bytes": None, "path": "/dev/zero"}]
    parquet.write_table(pyarrow.table({"image": image, "label": [0, 1]}), tmp_path / "a.parquet")
    source = open_source(str(tmp_path), "train")
    assert source is not None
    assert source[0].image == FILES[0]
    with pytest.raises(VitportError, match=r"has no image bytes in the column image, at most a path"):
        source[1]


def test_numbered_files_of_which_one_is_missing_are_refused(tmp_path) -> None:
    for number in (0, 2):
        parquet.write_table(_table(range(7)), tmp_path / f"train-{number:05}-of-00003.parquet")
    with pytest.raises(VitportError, match=r"train-00001-of-00003\.parquet is missing beside train-00000"):
        open_source(str(tmp_path), "train")


def test_a_damaged_parquet_file_is_refused(tmp_path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + b"x" * 100)
    with pytest.raises(VitportError, match="has a file that cannot be read"):
        open_source(str(tmp_path), "train")


@pytest.mark.parametrize("ref", ["main", "refs/convert/parquet"])
def test_a_data_set_of_the_hub_is_read_out_of_its_cache(tmp_path, monkeypatch, ref) -> None:
    """The owner's Parquet files, or those that the Hub made."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    root = tmp_path / "datasets--me--tiny"
    for name, sha in {"main": "a" * 40, ref: "b" * 40}.items():
        (root / "snapshots" / sha).mkdir(parents=True)
        (root / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "refs" / name).write_text(sha)
    folder = root / "snapshots" / ("b" * 40) / "default" / "train"
    folder.mkdir(parents=True)
    parquet.write_table(_table(range(7)), folder / "0000.parquet")
    _check(open_source("hf://me/tiny", "train"), NAMES)
    with pytest.raises(VitportError, match="hf://me/other cannot be fetched"):
        open_source("hf://me/other", "train")


def _example(**values) -> bytes:
    example = EXAMPLE()
    for name, value in values.items():
        kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(value[0])]
        getattr(example.features.feature[name], kind).value.extend(value)
    return example.SerializeToString()


def test_examples_are_decoded_as_protobuf_encoded_them() -> None:
    values = {"image": [FILES[0]], "more": [b"", b"x" * 300], "label": [5], "many": [0, -1, 2**62, -(2**63), 300]}
    assert features(_example(**values, left_out=[0.5])) == values
    for cut in (1, 5, len(FILES[0])):
        with pytest.raises(ValueError, match="truncated"):
            features(_example(**values)[:-cut])


def _array_record(path: Path, records: list[bytes]) -> None:
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def test_array_records_are_those_of_tensorflow_datasets(tmp_path) -> None:
    examples = [_example(image=[data], label=[label]) for data, label in zip(FILES, LABELS, strict=True)]
    _array_record(tmp_path / "x-train.array_record-00000-of-00002", examples[:3])
    _array_record(tmp_path / "x-train.array_record-00001-of-00002", examples[3:])
    _array_record(tmp_path / "x-test.array_record-00000-of-00001", examples[4:6])
    with pytest.raises(VitportError, match=r"has no classes\.txt"):
        open_source(str(tmp_path), "train")
    (tmp_path / "label.labels.txt").write_text("ant\nbee\ncat\n")
    train, validation = open_sources(Data(str(tmp_path)))
    _check(train, NAMES)
    _check(validation, NAMES, [4, 5])


def test_records_that_are_no_examples_are_corrupt_images(tmp_path) -> None:
    good = _example(image=[FILES[0]], label=[1])
    bad = [
        b"\xff\xff",
        _example(image=[FILES[0]]),
        _example(image=[FILES[0]], label=[3]),
        _example(image=[1], label=[1]),
    ]
    _array_record(tmp_path / "x.array_record", [good, *bad])
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    source = open_source(str(tmp_path), "train")
    assert source is not None
    assert source[0].label == 1
    for at in range(1, 5):
        with pytest.raises(VitportError, match=rf"\[{at}\] (is not a tf.train.Example|has no image)"):
            source[at]


def _all_kinds(root: Path) -> list[str]:
    _tar(root / "tar" / "a.tar", _members(range(7)))
    for kind in ("parquet", "arrow", "records"):
        (root / kind).mkdir()
    parquet.write_table(_table(range(7)), root / "parquet" / "a.parquet")
    with pyarrow.ipc.new_stream(root / "arrow" / "a.arrow", _table(range(7)).schema) as writer:
        writer.write_table(_table(range(7)))
    _array_record(
        root / "records" / "a.array_record", [_example(image=[FILES[n]], label=[LABELS[n]]) for n in range(7)]
    )
    (root / "records" / "classes.txt").write_text("ant\nbee\ncat\n")
    return [str(root / kind) for kind in ("tar", "parquet", "arrow", "records")]


def test_the_same_images_give_the_same_batches_however_they_are_stored(tmp_path) -> None:
    """In the order of storage; the way to a worker is tried for each kind above."""
    preprocessing, options = Preprocessing(size=8), Augmentation()
    batches = []
    for path in _all_kinds(tmp_path):
        source = open_source(path, "train")
        assert source is not None
        with Stream(source, Data(augment=options), preprocessing, batch=9, rows=range(9), seed=0) as stream:
            batches.append(next(stream))
        assert not stream.corrupt
    for batch in batches[1:]:
        for name, array in batches[0].items():
            np.testing.assert_array_equal(batch[name], array)
