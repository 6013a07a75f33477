"""Arrays in ``.npz``, and images that are held out. Oracles: the arrays that were saved, and counts."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.vit_jax.training.data.folders import image_folder
from vit_jax.training.data import evaluation_batches, open_source, open_sources
from vit_jax.training.data.images import evaluation_pixels
from vit_jax.training.data.sources.holdout import labels_of
from vit_jax.training.recipe.data import Data
from vit_spec import Preprocessing, VitportError

pytestmark = pytest.mark.jax_alone

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 7, 3)).astype(np.uint8)
LABELS = np.arange(12) % 3


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"images": IMAGES, "labels": LABELS}, [IMAGES, None]),
        ({"images": IMAGES[..., 0], "labels": LABELS[:, None].astype(np.float64)}, [IMAGES[..., :1], None]),
        ({"train_images": IMAGES[:9], "train_labels": LABELS[:9], "test_labels": LABELS[9:],
          "test_images": IMAGES[9:]}, [IMAGES[:9], IMAGES[9:]]),
        ({"X_train": IMAGES[:6], "y_train": LABELS[:6], "X_test": IMAGES[9:], "y_val": LABELS[6:9],
          "X_val": IMAGES[6:9], "y_test": LABELS[9:]}, [IMAGES[:6], IMAGES[6:9]]),
    ],
    ids=["one pair", "grey", "splits", "three splits"],
)  # fmt: skip
def test_images_and_labels_are_those_that_were_saved(arrays, found, tmp_path) -> None:
    np.savez_compressed(tmp_path / "data.npz", **arrays)
    for split, expected in zip(("train", "validation"), found, strict=True):
        source = open_source(str(tmp_path / "data.npz"), split)
        if expected is None:
            assert source is None
            continue
        assert source is not None
        assert len(pickle.dumps(source)) < 3000  # workers read the images by themselves
        again = pickle.loads(pickle.dumps(source))  # noqa: S301
        np.testing.assert_array_equal([again[at].image for at in range(len(again))], expected)
        at = next(n for n in range(12) if (IMAGES[n, ..., : expected.shape[-1]] == expected[0]).all())
        assert [again[n].label for n in range(len(again))] == LABELS[at : at + len(again)].tolist()
        assert again.classes == ("0", "1", "2")


def test_a_folder_has_a_file_for_each_split_and_names_of_classes(tmp_path) -> None:
    np.savez(tmp_path / "train.npz", images=IMAGES[:9], labels=LABELS[:9])
    np.savez(tmp_path / "val.npz", images=IMAGES[9:], labels=LABELS[9:])
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    train, validation = open_sources(Data(str(tmp_path)))
    assert (len(train), len(validation or ())) == (9, 3)
    assert train.classes == ("ant", "bee", "cat")


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/tmp/never"),))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": IMAGES}, r"holds the arrays x: expected images and labels"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"is float64 \(12, 5, 7, 3\): expected images as uint8"),
        ({"images": IMAGES[:5], "labels": LABELS}, "has 5 images, and 12 labels"),
        ({"images": IMAGES, "labels": np.array([_Evil()], object)}, "cannot be read"),
        ({"images": IMAGES, "test_labels": LABELS}, "has no labels of the train split"),
    ],
)
def test_what_holds_no_images_is_one_sentence(arrays, sentence, tmp_path) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(VitportError, match=sentence):
        open_source(str(tmp_path / "data.npz"), "train")


def test_a_share_of_each_class_is_held_out_the_same_for_the_same_seed(tmp_path) -> None:
    image_folder(tmp_path / "photos", 20)
    for count, name in ((7, "dog"), (2, "elk")):
        image_folder(tmp_path / "photos", count, (name,))
    options = Data(str(tmp_path / "photos"), holdout=0.1)
    train, validation = open_sources(options)
    assert validation is not None
    assert np.bincount(labels_of(validation)).tolist() == [2, 2, 2, 1, 1]
    assert np.bincount(labels_of(train)).tolist() == [18, 18, 18, 6, 1]
    names = [{source[at].name for at in range(len(source))} for source in (train, validation)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 69
    assert all(validation[at].label == labels_of(validation)[at] for at in range(len(validation)))
    again = open_sources(options)[1]
    assert {again[at].name for at in range(len(again))} == names[1]  # type: ignore[arg-type, index]
    other = open_sources(Data(str(tmp_path / "photos"), holdout=0.1, holdout_seed=1))[1]
    assert {other[at].name for at in range(len(other))} != names[1]  # type: ignore[arg-type, index]


def test_what_cannot_be_held_out_is_one_sentence(tmp_path) -> None:
    image_folder(tmp_path / "photos", 3)
    image_folder(tmp_path / "photos", 1, ("dog",))
    with pytest.raises(VitportError, match=r"has a single image of the class dog, which data\.holdout cannot"):
        open_sources(Data(str(tmp_path / "photos"), holdout=0.1))
    with pytest.raises(VitportError, match=r"data\.holdout=0\.1 holds images out where there are none for validation"):
        open_sources(Data("digits", holdout=0.1))
    with pytest.raises(VitportError, match=r"data\.holdout must be a share from 0 to below 1; got 1"):
        Data(holdout=1)


def test_images_of_sixteen_bits_and_floats_have_a_named_range(tmp_path) -> None:
    """Oracle: numpy. In files and in arrays; what has 8 bits stays."""
    wide = RNG.integers(0, 4096, (12, 5, 7)).astype(np.uint16)
    expected = np.round(np.clip((wide.astype(float) - 100) / 3900, 0, 1) * 255)[..., None]
    for name, at in (("ant", 0), ("bee", 6)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(at, at + 6):
            Image.fromarray(wide[k]).save(tmp_path / "photos" / name / f"{k:02}.{'png' if k % 2 else 'tiff'}")
    Image.fromarray(IMAGES[0]).save(tmp_path / "photos" / "bee" / "x.png")
    np.savez(tmp_path / "wide.npz", images=wide, labels=LABELS)
    np.savez(tmp_path / "float.npz", images=wide.astype(np.float32), labels=LABELS)
    for path in ("wide.npz", "float.npz", "photos"):
        source, _ = open_sources(Data(str(tmp_path / path), range=(100, 4000)))
        found = [source[at].image for at in range(12)]
        assert all(isinstance(image, np.ndarray) and image.dtype == np.uint8 for image in found)
        assert np.abs(np.array(found, float) - expected).max() <= 1  # a half may be rounded either way
    assert isinstance(source[12].image, bytes)
    batch = next(iter(evaluation_batches(source, Preprocessing(size=(5, 7), crop_fraction=1.0), batch=13)))
    assert batch["weight"].all()
    np.testing.assert_array_equal(batch["image"][0], np.repeat(source[0].image, 3, axis=2))
    with pytest.raises(VitportError, match=r"for other values give --data\.range LOW HIGH"):
        open_sources(Data(str(tmp_path / "wide.npz")))
    refused, _ = open_sources(Data(str(tmp_path / "photos")))
    with pytest.raises(VitportError, match=r"or train with --data\.range LOW HIGH"):
        evaluation_pixels(refused[0], Preprocessing(size=(5, 7)))
    with pytest.raises(VitportError, match="two numbers, the smaller one first"):
        Data(range=(1, 0))
