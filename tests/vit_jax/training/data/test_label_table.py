"""Images with a table of labels, and folders of splits that are not classes. Oracle: what the tests wrote."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.vit_jax.training.data.folders import encoded, image_folder, smooth_image
from vit_jax.training.data import Data, Table, open_source, open_sources
from vit_spec import VitportError

pytestmark = pytest.mark.jax_alone

NAMES = ("ant", "bee", "cat")


def _images(folder: Path, count: int = 9) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for at in range(count):
        (folder / f"{at:04}.jpg").write_bytes(encoded(smooth_image(at), "JPEG"))


def _table(path: Path, header: Sequence[str] | None, rows: Sequence[Sequence[object]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8-sig" if delimiter == ";" else "utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows(([header] if header else []) + list(rows))


ROWS = [(f"{at:04}.jpg", NAMES[at % 3]) for at in range(9)]
BARE = [(name.removesuffix(".jpg"), label) for name, label in ROWS]
ONE_HOT = [(name, *(int(label == other) for other in NAMES)) for name, label in BARE]
TABLES = {
    "kaggle": (("image_id", "label"), ROWS),
    "stems": (("id", "breed"), BARE),
    "label first": (("label", "image"), [row[::-1] for row in ROWS]),
    "without names": (None, ROWS),
    "paths": (("file", "class"), [(f"train_images/{name}", label) for name, label in ROWS]),
    "other columns": (("width", "image", "category", "id"), [(40, n, c, at) for at, (n, c) in enumerate(ROWS)]),
    "one column for each class": (("image", *NAMES), ONE_HOT),
}


@pytest.mark.parametrize("what", list(TABLES))
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_names_the_class_of_each_training_image(what, delimiter, tmp_path) -> None:
    _images(tmp_path / "train_images")
    _images(tmp_path / "test_images")  # the same names, of other images
    _table(tmp_path / "train.csv", *TABLES[what], delimiter)
    train, validation = open_sources(Data(str(tmp_path), labels="train.csv"))
    assert validation is None
    assert train.classes == NAMES
    found = [train[at] for at in range(len(train))]
    assert [record.label for record in found] == [at % 3 for at in range(9)]
    assert [record.name for record in found] == [str(tmp_path / "train_images" / name) for name, _ in ROWS]
    assert found[4].image == (tmp_path / "train_images" / "0004.jpg").read_bytes()


def test_numbers_are_named_by_a_list_and_a_table_may_lie_elsewhere(tmp_path) -> None:
    _images(tmp_path / "images")
    _table(tmp_path / "labels.csv", ("image", "target"), [(name, at % 3) for at, (name, _) in enumerate(ROWS)])
    options = Data(str(tmp_path / "images"), labels=str(tmp_path / "labels.csv"))
    assert open_sources(options)[0].classes == ("0", "1", "2")
    (tmp_path / "images" / "classes.txt").write_text("\n".join(NAMES))
    assert open_sources(options)[0].classes == NAMES


def test_a_column_of_splits_divides_the_rows(tmp_path) -> None:
    _images(tmp_path)
    splits = ["train"] * 5 + ["val"] * 4
    _table(tmp_path / "all.csv", ("image", "label", "split"), [(*row, s) for row, s in zip(ROWS, splits, strict=True)])
    train, validation = open_sources(Data(str(tmp_path), labels="all.csv"))
    assert validation is not None
    assert (len(train), len(validation)) == (5, 4)
    assert validation.classes == train.classes
    assert [validation[at].label for at in range(4)] == [at % 3 for at in range(5, 9)]


def test_columns_may_be_named(tmp_path) -> None:
    _images(tmp_path)
    rows = [(name, NAMES[::-1][at % 3], label) for at, (name, label) in enumerate(ROWS)]
    _table(tmp_path / "t.csv", ("image", "first", "second"), rows)
    with pytest.raises(VitportError, match=r"several columns .*data\.label_column, one of first, second"):
        open_sources(Data(str(tmp_path), labels="t.csv"))
    train, _ = open_sources(Data(str(tmp_path), labels="t.csv", image_column="image", label_column="second"))
    assert [train[at].label for at in range(3)] == [0, 1, 2]
    with pytest.raises(VitportError, match="no column 'third'"):
        open_sources(Data(str(tmp_path), labels="t.csv", label_column="third"))
    with pytest.raises(VitportError, match=r"give it with data\.labels"):
        Data(label_column="second")


SEVERAL = [(), ("bee",), ("ant", "cat"), ("ant",), ("ant", "bee", "cat"), (), ("cat",), ("bee", "cat"), ("ant",)]
MATRIX = [[int(name in labels) for name in NAMES] for labels in SEVERAL]
FILES = [name for name, _ in ROWS]
SIGNED = [[2 * mark - 1 for mark in row] for row in MATRIX]
SEVERAL_TABLES = {
    "columns": (("image", *NAMES), [(name, *row) for name, row in zip(FILES, MATRIX, strict=True)], None),
    "columns of signs": (("image", *NAMES), [(name, *row) for name, row in zip(FILES, SIGNED, strict=True)], None),
    "bars": (("image", "labels"), [(n, "|".join(row)) for n, row in zip(FILES, SEVERAL, strict=True)], None),
    "spaces": (("image", "tags"), [(n, " ".join(row)) for n, row in zip(FILES, SEVERAL, strict=True)], " "),
    "commas": (("image", "y"), [(n, " , ".join(row)) for n, row in zip(FILES, SEVERAL, strict=True)], ","),
}


@pytest.mark.parametrize("what", list(SEVERAL_TABLES))
def test_an_image_may_have_several_labels_or_none(what, tmp_path) -> None:
    header, rows, separator = SEVERAL_TABLES[what]
    _images(tmp_path)
    _table(tmp_path / "t.csv", header, rows)
    _table(tmp_path / "val.csv", header, rows[3:4] * 3)  # one label each
    options = Data(
        str(tmp_path), labels="t.csv", validation_labels=str(tmp_path / "val.csv"), label_separator=separator
    )
    train, validation = open_sources(options)
    assert validation is not None
    assert train.classes == validation.classes == NAMES
    assert [list(train[at].label) for at in range(9)] == MATRIX
    assert [list(validation[at].label) for at in range(3)] == [[1, 0, 0]] * 3
    kept, held = open_sources(Data(str(tmp_path), labels="t.csv", label_separator=separator, holdout=0.5))
    assert held is not None
    assert len(kept) + len(held) == 9
    # By their rarest label: bee (3 images, of which 1 or 2 are held out), ant and cat (4 each), none (2, so 1).
    counts = [sum(not any(source[at].label) for at in range(len(source))) for source in (kept, held)]
    assert counts == [1, 1]
    assert [source[at].label[1] for source in (kept, held) for at in range(len(source))].count(1) == 3


def test_data_of_several_labels_and_of_one_do_not_mix(tmp_path) -> None:
    _images(tmp_path)
    _table(tmp_path / "t.csv", *SEVERAL_TABLES["columns"][:2])
    image_folder(tmp_path / "other" / "val")
    with pytest.raises(VitportError, match=r"has images of several labels, and .* has one for each"):
        open_sources(Data(str(tmp_path), labels="t.csv", validation=str(tmp_path / "other")))
    with pytest.raises(VitportError, match="label_separator must be a character or more"):
        Data(str(tmp_path), labels="t.csv", label_separator="")


FAULTS = {
    "rows without an image": ([*ROWS, ("0099.jpg", "ant")], "lists 1 of 10 images that are not below .*0099"),
    "no images": ([("x.jpg", "ant"), ("y.jpg", "bee")], "no column whose values are images"),
    "a ragged row": ([*ROWS[:4], ("0004.jpg",)], "1 values in row 6, but 2 in the first"),
    "one class": ([(name, "ant") for name, _ in ROWS], "must have 2 classes or more"),
}


@pytest.mark.parametrize("what", list(FAULTS))
def test_a_faulty_table_is_one_sentence(what, tmp_path) -> None:
    rows, message = FAULTS[what]
    _images(tmp_path)
    _table(tmp_path / "t.csv", ("image", "label"), rows)
    with pytest.raises(VitportError, match=message):
        open_sources(Data(str(tmp_path), labels="t.csv"))


@pytest.mark.parametrize(
    "folders",
    [("train_images", "test_images"), ("train", "test"), ("Train", "Val"), ("trainset", "testset"), ("images_train",
     "images_val", "images_test"), ("train2017", "val2017"), ("test", "val"), ("train", "unlabeled")],
    ids="+".join,
)  # fmt: skip
def test_splits_are_no_classes(folders, tmp_path) -> None:
    for folder in folders:
        _images(tmp_path / folder)
    with pytest.raises(VitportError, match="splits of a data set, not classes: put the images of each class"):
        open_sources(Data(str(tmp_path)))
    _table(tmp_path / "train.csv", ("image", "label"), ROWS)
    with pytest.raises(VitportError, match=r"with --data\.labels train\.csv"):
        open_sources(Data(str(tmp_path)))


@pytest.mark.parametrize("folders", [("Train", "Val"), ("train_images", "val_images"), ("training", "testing")])
def test_splits_of_other_names_that_hold_classes_are_read(folders, tmp_path) -> None:
    image_folder(tmp_path / folders[0])
    image_folder(tmp_path / folders[1], count=2)
    train, validation = open_sources(Data(str(tmp_path)))
    assert validation is not None
    assert (len(train), len(validation), train.classes) == (24, 6, NAMES)


@pytest.mark.parametrize("folders", [("val",), ("test",), ("test", "val"), ("val2017",)], ids="+".join)
def test_a_folder_of_validation_images_alone_is_evaluated_and_not_trained_on(folders, tmp_path) -> None:
    for count, folder in enumerate(folders, 2):
        image_folder(tmp_path / folder, count=count)
    source = open_source(str(tmp_path), "validation")
    assert source is not None
    assert source[0].name.startswith(str(tmp_path / folders[-1]))  # val before test
    assert source.classes == NAMES
    with pytest.raises(VitportError, match="has no training images"):
        open_sources(Data(str(tmp_path)))


@pytest.mark.parametrize("classes", [("valid", "invalid"), ("bus", "car", "train"), ("tester", "trainer")])
def test_classes_that_sound_like_splits_are_classes(classes, tmp_path) -> None:
    image_folder(tmp_path, classes=classes)
    train, validation = open_sources(Data(str(tmp_path)))
    assert validation is None
    assert train.classes == tuple(sorted(classes))


@pytest.mark.parametrize("apart", [False, True])
def test_a_second_table_names_the_validation_images(apart: bool, tmp_path) -> None:
    """In the same folder, whose images have the same names as those for training, or in another."""
    _images(tmp_path / "train_images")
    held = tmp_path / "other" if apart else tmp_path / "val_images"
    _images(held, 4)
    _images(tmp_path / "test_images")
    _table(tmp_path / "train.csv", ("image", "label"), ROWS)
    rows = [(name, NAMES[(at + 1) % 3]) for at, (name, _) in enumerate(ROWS[:2])]  # not every class
    _table((held if apart else tmp_path) / "held_out.csv", ("image", "label"), rows)
    given = {"validation": str(held)} if apart else {}
    train, validation = open_sources(Data(str(tmp_path), labels="train.csv", validation_labels="held_out.csv", **given))
    assert validation is not None
    assert (len(train), len(validation)) == (9, 2)
    assert [(it.name, it.label) for it in (validation[0], validation[1])] == [
        (str(held / name), (at + 1) % 3) for at, (name, _) in enumerate(rows)
    ]
    assert train.classes == validation.classes == NAMES


def test_a_table_is_of_the_split_that_its_name_says(tmp_path) -> None:
    for folder in ("train_images", "val_images", "test_images"):
        _images(tmp_path / folder)
    for name in ("train", "val", "test"):
        _table(tmp_path / f"{name}.csv", ("image", "label"), ROWS)
    for name, split in (("train", "train"), ("val", "validation"), ("test", "validation")):
        source = open_source(str(tmp_path), split, table=Table(f"{name}.csv"))
        assert source is not None
        assert source[0].name == str(tmp_path / f"{name}_images" / "0000.jpg")
        other = "train" if split == "validation" else "validation"
        assert open_source(str(tmp_path), other, table=Table(f"{name}.csv")) is None


def test_a_second_table_alone_has_no_images(tmp_path) -> None:
    with pytest.raises(VitportError, match="has no place to look"):
        Data(str(tmp_path), validation_labels="val.csv")
