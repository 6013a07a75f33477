"""Oracles: scikit-learn's own split, Pillow's own reading of the files, and what the tests wrote."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tests.vit_jax.training.data.folders import CLASSES, encoded, idx_file, image_folder, smooth_image
from vit_jax.training.data import Data, open_source, open_sources
from vit_spec import VitportError

pytestmark = pytest.mark.jax_alone


def test_digits_are_split_as_the_demo_model_was_trained() -> None:
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) * (255 / 16)).round().astype(np.uint8)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    for source, x, y in zip(open_sources(Data("digits")), (train_x, test_x), (train_y, test_y), strict=True):
        assert source is not None
        records = [source[at] for at in range(len(source))]
        np.testing.assert_array_equal(np.stack([np.asarray(record.image) for record in records]), x)
        assert [record.label for record in records] == y.tolist()
        assert source.classes == tuple("0123456789")


@pytest.mark.parametrize("held_out", [None, "val", "validation", "test"])
def test_an_image_folder_is_read_in_the_order_of_sorted_paths(tmp_path, held_out) -> None:
    image_folder(tmp_path / "train" if held_out else tmp_path)
    if held_out:
        image_folder(tmp_path / held_out, count=2)
    train, validation = open_sources(Data(str(tmp_path)))
    assert train.classes == CLASSES
    assert [train[at].label for at in range(len(train))] == [0] * 8 + [1] * 8 + [2] * 8
    record = train[8 + 3]
    assert record.name.endswith("bee/003.png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(record.image))), smooth_image(103))
    assert (len(validation) if validation else None) == (6 if held_out else None)


def test_folders_within_class_folders_count_and_what_is_no_image_does_not(tmp_path) -> None:
    image_folder(tmp_path, count=1)
    (tmp_path / "bee" / "more").mkdir()
    (tmp_path / "bee" / "more" / "ü.JPG").write_bytes(encoded(smooth_image(5), "JPEG"))
    (tmp_path / "bee" / "list.txt").write_text("000.png")
    (tmp_path / "bee" / "._000.png").write_bytes(b"Finder's")
    source = open_source(str(tmp_path), "train")
    assert source is not None
    assert [source[at].name.removeprefix(str(tmp_path)) for at in range(len(source))] == [
        "/ant/000.png",
        "/bee/000.png",
        "/bee/more/ü.JPG",
        "/cat/000.png",
    ]


def test_a_folder_source_is_small_when_pickled(tmp_path) -> None:
    """ImageNet's 1.3 million names must go to every worker; an object each would take some 100 bytes more."""
    image_folder(tmp_path, count=40)
    source = open_source(str(tmp_path), "train")
    assert source is not None
    again = pickle.loads(pickle.dumps(source))  # noqa: S301
    assert again[50] == source[50]
    assert len(pickle.dumps(source)) - 1000 < len(source) * (len("000.png") + 8 + 4)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dash", ["-", "."])
def test_idx_files_are_mnist_and_its_test_part_is_for_validation(tmp_path, suffix, dash) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (12, 5, 4)), np.arange(12) % 4
    for part, cut in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        idx_file(tmp_path / f"{part}-images{dash}idx3-ubyte{suffix}", images[cut])
        idx_file(tmp_path / f"{part}-labels{dash}idx1-ubyte{suffix}", labels[cut])
    for source, cut in zip(open_sources(Data(str(tmp_path))), (slice(0, 8), slice(8, 12)), strict=True):
        assert source is not None
        source = pickle.loads(pickle.dumps(source))  # noqa: S301
        records = [source[at] for at in range(len(source))]
        np.testing.assert_array_equal(np.stack([record.image for record in records])[..., 0], images[cut])
        assert [record.label for record in records] == labels[cut].tolist()
        assert source.classes == ("0", "1", "2", "3")


def test_a_list_of_classes_names_the_numbers_of_idx_files(tmp_path) -> None:
    for part in ("train", "t10k"):
        idx_file(tmp_path / f"{part}-images-idx3-ubyte", np.zeros((3, 2, 2)))
        idx_file(tmp_path / f"{part}-labels-idx1-ubyte", np.array([0, 1, 1]))
    (tmp_path / "classes.txt").write_text("shirt\nshoe\nhat\n")
    for source in open_sources(Data(str(tmp_path))):
        assert source is not None
        assert source.classes == ("shirt", "shoe", "hat")


def test_the_validation_path_may_be_another_data_set_of_the_same_classes(tmp_path) -> None:
    image_folder(tmp_path / "a" / "train")
    image_folder(tmp_path / "b", count=1)
    image_folder(tmp_path / "c", count=1, classes=("ant", "bee", "dog"))
    _, validation = open_sources(Data(str(tmp_path / "a"), validation=str(tmp_path / "b")))
    assert validation is not None
    assert len(validation) == 3
    with pytest.raises(VitportError, match=r"c does not have the classes of .*train: it lacks cat and also has dog"):
        open_sources(Data(str(tmp_path / "a"), validation=str(tmp_path / "c")))


def _no_folder(root) -> str:
    return str(root / "nowhere")


def _empty(root) -> str:
    return str(root)


def _file(root) -> str:
    (root / "a.bin").write_bytes(b"x")
    return str(root / "a.bin")


def _one_class(root) -> str:
    return str(image_folder(root, classes=("ant",)))


def _empty_class(root) -> str:
    image_folder(root)
    (root / "dog").mkdir()
    return str(root)


def _idx_without_labels(root) -> str:
    idx_file(root / "train-images-idx3-ubyte", np.zeros((2, 3, 3)))
    return str(root)


def _idx_cut_off(root) -> str:
    for what, shape in (("images-idx3", (4, 3, 3)), ("labels-idx1", (4,))):
        idx_file(root / f"train-{what}-ubyte", np.arange(np.prod(shape)).reshape(shape))
    path = root / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    return str(root)


def _idx_of_two(root) -> str:
    idx_file(root / "train-images-idx3-ubyte", np.zeros((2, 3, 3)))
    idx_file(root / "train-labels-idx1-ubyte", np.array([0, 1, 2]))
    return str(root)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_no_folder, "nowhere does not exist"),
        (_empty, "has no class folders"),
        (_file, "a.bin has no known format"),
        (_one_class, "must have 2 classes or more; got ant"),
        (_empty_class, "dog has no images"),
        (_idx_without_labels, "has no labels file of the train split"),
        (_idx_cut_off, "is not an IDX file of 3-dimensional bytes, or is truncated"),
        (_idx_of_two, "has 2 images, and its label file 3 labels"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_sentence(tmp_path, make, sentence) -> None:
    with pytest.raises(VitportError, match=sentence):
        open_source(make(tmp_path), "train")
