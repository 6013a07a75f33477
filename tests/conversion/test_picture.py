"""Pictures as the weights expect them. Oracles: transformers' image processors and Pillow, step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from conversion import load_picture
from vit_spec import Preprocessing, VitportError

CHINA = Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _normalised(image: Image.Image, mean=MEAN, std=STD) -> np.ndarray:
    return ((np.asarray(image, np.float64) / 255 - mean) / std).astype(np.float64)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squash_is_what_transformers_does(interpolation) -> None:
    """float32 against float32 in another order of the same three operations: measured 4.8e-7 on values up to 2.7."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor = ViTImageProcessorPil(
        size={"height": 96, "width": 128},
        resample=Image.Resampling[interpolation.upper()],
        image_mean=MEAN,
        image_std=STD,
    )
    expected = processor(Image.open(CHINA), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    ours = load_picture(CHINA, Preprocessing(size=(96, 128), resize="squash", interpolation=interpolation))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("turned", "crop_fraction"), [(False, 0.875), (True, 0.875), (False, 1.0), (True, 0.9)])
def test_shortest_scales_then_cuts_the_centre(tmp_path, turned, crop_fraction) -> None:
    """torchvision's Resize(int) and CenterCrop, in Pillow's own calls: china.jpg is 640×427."""
    image = Image.open(CHINA)
    image = image.transpose(Image.Transpose.ROTATE_90) if turned else image
    image.save(tmp_path / "picture.png")
    edge = int(224 / crop_fraction)
    longer = int(edge * 640 / 427)
    scaled = image.resize((edge, longer) if turned else (longer, edge), Image.Resampling.BICUBIC)
    left, top = (scaled.width - 224) / 2, (scaled.height - 224) / 2
    box = (round(left), round(top), round(left) + 224, round(top) + 224)
    expected = _normalised(scaled.crop(box))
    ours = load_picture(tmp_path / "picture.png", Preprocessing(crop_fraction=crop_fraction))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_an_oblong_cut_is_covered_by_the_picture() -> None:
    ours = load_picture(CHINA, Preprocessing(size=(100, 300), crop_fraction=1.0, mean=(0.0,) * 3, std=(1.0,) * 3))
    scaled = Image.open(CHINA).resize((300, 200), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(ours, np.asarray(scaled)[50:150] / 255, rtol=0, atol=1e-6)


def test_orientation_tags_are_applied(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the picture is to be shown rotated by 270 degrees
    Image.open(CHINA).save(tmp_path / "turned.png", exif=exif)
    Image.open(CHINA).transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    settings = Preprocessing(size=64)
    assert (load_picture(tmp_path / "turned.png", settings) == load_picture(tmp_path / "upright.png", settings)).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode) -> None:
    Image.open(CHINA).convert(mode).save(tmp_path / "picture.tiff")
    assert load_picture(tmp_path / "picture.tiff", Preprocessing(size=32)).shape == (32, 32, 3)


def test_a_model_of_one_channel_gets_grey(tmp_path) -> None:
    settings = Preprocessing(size=(427, 640), resize="squash", mean=(0.5,), std=(0.5,))
    expected = (np.asarray(Image.open(CHINA).convert("L"), np.float64)[..., None] / 255 - 0.5) / 0.5
    np.testing.assert_allclose(load_picture(CHINA, settings), expected, rtol=0, atol=1e-6)


def _text(path: Path) -> Path:
    path.write_text("This is no picture.")
    return path


def _truncated(path: Path) -> Path:
    path.write_bytes(CHINA.read_bytes()[:20_000])
    return path


def _bomb(path: Path) -> Path:
    Image.new("1", (20_000, 20_000)).save(path, format="PNG")
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path, "does not exist"),
        (lambda path: path.parent, "is a folder"),
        (_text, "no picture"),
        (_truncated, "damaged"),
        (_bomb, "more pixels than are safe"),
    ],
)
def test_what_is_no_picture_is_one_sentence(tmp_path, make, sentence) -> None:
    with pytest.raises(VitportError, match=sentence) as caught:
        load_picture(make(tmp_path / "picture.jpg"), Preprocessing())
    assert "\n" not in str(caught.value)
