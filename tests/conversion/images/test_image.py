"""Images as the weights expect them. Oracles: transformers' image processors, and Pillow's calls step by step.

The oracles normalise in float64 or in float32 in another order: measured up to 4.8e-7 on values up to 2.7, which is a
few roundings of float32. Asserted: 1e-6; the next pixel value is 1.7e-2 away.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from conversion import load_image
from conversion.images.image import normalize
from vit_spec import Preprocessing, VitportError

CHINA = Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _normalised(image: Image.Image, mean=MEAN, std=STD) -> np.ndarray:
    return (np.asarray(image, np.float64) / 255 - mean) / std


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squash_is_what_transformers_does(interpolation) -> None:
    """Oracle: the processor of Google's and DeiT's folders on the Hub, in its edition without torchvision."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor = ViTImageProcessorPil(
        size={"height": 96, "width": 128},
        resample=Image.Resampling[interpolation.upper()],
        image_mean=MEAN,
        image_std=STD,
    )
    expected = processor(Image.open(CHINA), return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    ours = load_image(CHINA, Preprocessing(size=(96, 128), resize="squash", interpolation=interpolation))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("turned", "crop_fraction"), [(False, 0.875), (True, 0.875), (False, 1.0), (True, 0.9)])
def test_shortest_scales_then_cuts_the_centre(tmp_path, turned, crop_fraction) -> None:
    """torchvision's Resize(int) and CenterCrop, in Pillow's own calls: china.jpg is 640×427."""
    image = Image.open(CHINA)
    image = image.transpose(Image.Transpose.ROTATE_90) if turned else image
    image.save(tmp_path / "image.png")
    edge = int(224 / crop_fraction)
    longer = int(edge * 640 / 427)
    scaled = image.resize((edge, longer) if turned else (longer, edge), Image.Resampling.BICUBIC)
    left, top = (scaled.width - 224) / 2, (scaled.height - 224) / 2
    box = (round(left), round(top), round(left) + 224, round(top) + 224)
    expected = _normalised(scaled.crop(box))
    ours = load_image(tmp_path / "image.png", Preprocessing(crop_fraction=crop_fraction))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "crop_fraction", "scaled"),
    [
        ((100, 300), 1.0, (300, 200)),  # the width decides: 640 -> 300, 427 -> 200.16
        ((300, 100), 0.9, (499, 333)),  # the height: 427 -> floor(300 / 0.9), 640 -> 499.1
    ],
)
def test_an_oblong_cut_is_covered_by_the_image(size, crop_fraction, scaled) -> None:
    """timm's ResizeKeepRatio and torchvision's CenterCrop, in Pillow's own calls."""
    image = Image.open(CHINA).resize(scaled, Image.Resampling.BICUBIC)
    left, top = round((scaled[0] - size[1]) / 2), round((scaled[1] - size[0]) / 2)
    expected = _normalised(image.crop((left, top, left + size[1], top + size[0])))
    ours = load_image(CHINA, Preprocessing(size=size, crop_fraction=crop_fraction))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (31, 33)])
@pytest.mark.parametrize("settings", [Preprocessing(size=32), Preprocessing(size=(16, 48)), Preprocessing(size=7)])
def test_any_image_gives_the_size_that_is_asked_for(tmp_path, shape, settings) -> None:
    Image.new("RGB", shape, (255, 0, 51)).save(tmp_path / "image.png")
    loaded = load_image(tmp_path / "image.png", settings.replace(mean=(0.0,) * 3, std=(1.0,) * 3))
    np.testing.assert_allclose(loaded, np.full((*settings.size, 3), (1.0, 0.0, 0.2)), rtol=0, atol=1e-7)


ORIENTATIONS = {  # EXIF 2.32, tag 0x0112: how to turn what is stored so that it stands upright
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_tags_are_applied(tmp_path, orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.open(CHINA).resize((48, 32))
    stored.save(tmp_path / "turned.png", exif=exif)
    expected = _normalised(ORIENTATIONS[orientation](np.asarray(stored)))
    ours = load_image(tmp_path / "turned.png", Preprocessing(size=expected.shape[:2], crop_fraction=1.0))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode) -> None:
    Image.open(CHINA).convert(mode).save(tmp_path / "image.tiff")
    assert load_image(tmp_path / "image.tiff", Preprocessing(size=32)).shape == (32, 32, 3)


def test_a_model_of_one_channel_gets_grey(tmp_path) -> None:
    settings = Preprocessing(size=(427, 640), resize="squash", mean=(0.5,), std=(0.5,))
    expected = (np.asarray(Image.open(CHINA).convert("L"), np.float64)[..., None] / 255 - 0.5) / 0.5
    np.testing.assert_allclose(load_image(CHINA, settings), expected, rtol=0, atol=1e-6)


def test_channels_that_do_not_match_are_refused_not_broadcast() -> None:
    pixels = np.zeros((4, 5, 1), np.uint8)
    with pytest.raises(VitportError, match=r"shape \(4, 5, 1\) does not fit a preprocessing with 3 channels"):
        normalize(pixels, Preprocessing())
    with pytest.raises(VitportError, match=r"shape \(224, 224, 3\) does not fit a preprocessing with 4 channels"):
        load_image(CHINA, Preprocessing(mean=(0.5,) * 4, std=(0.5,) * 4))


def test_pixels_of_an_array_are_normalised_channel_by_channel() -> None:
    pixels = np.array([[[0, 51, 255]]], np.uint8)
    settings = Preprocessing(mean=(0.5, 0.2, 0.0), std=(0.5, 1.0, 0.25))
    np.testing.assert_allclose(normalize(pixels, settings), [[[-1.0, 0.0, 4.0]]], rtol=0, atol=1e-7)
    grey = normalize(pixels[..., 2], Preprocessing(mean=(0.5,), std=(0.5,)))
    assert grey.tolist() == [[[1.0]]]


def _text(path: Path) -> None:
    path.write_text("This is not an image.")


def _nothing(path: Path) -> None:
    path.touch()


def _truncated(path: Path) -> None:
    path.write_bytes(CHINA.read_bytes()[:20_000])


def _bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path, format="PNG")


def _large_enough_for_a_warning(path: Path) -> None:
    Image.new("1", (math.isqrt(Image.MAX_IMAGE_PIXELS) + 1,) * 2).save(path, format="PNG")


def _sixteen_bits(path: Path) -> None:
    Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64).save(path, format="PNG")


def _program(path: Path) -> None:
    Image.open(CHINA).save(path, format="EPS")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "does not exist: give the path"),
        (Path.mkdir, "is a folder: give the path"),
        (_text, "is not an image that can be read: give a JPEG"),
        (_nothing, "is not an image that can be read: give a JPEG"),
        (_truncated, r"is a damaged image \(.*\): save it again"),
        (_bomb, "decodes to more than [0-9,]+ pixels, which is unsafe: scale it down"),
        (_large_enough_for_a_warning, "decodes to more than [0-9,]+ pixels"),
        (_sixteen_bits, "has more than 8 bits a channel .*: save it with 8 bits"),
        (_program, "has the unsupported format EPS: give a JPEG"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence_that_names_the_file(tmp_path, make, sentence) -> None:
    path = tmp_path / "image.jpg"
    make(path)
    with pytest.raises(VitportError, match=sentence) as caught:
        load_image(path, Preprocessing())
    assert str(caught.value).startswith(f"{path} ")
    assert "\n" not in str(caught.value)


def test_an_image_one_pixel_wide_is_refused_before_it_fills_the_memory(tmp_path) -> None:
    Image.new("1", (1, 60_000)).save(tmp_path / "image.png")
    with pytest.raises(VitportError, match="60000x1 pixels is too oblong: scaled to cover 224x224 it would have 3,9"):
        load_image(tmp_path / "image.png", Preprocessing())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_damage_raises_anything_else(tmp_path) -> None:
    """A few bytes of a small JPEG with EXIF data are changed, or its end is cut off: read, or refused in a sentence."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a temple"
    exif.get_ifd(0x8769)[0x829A] = (1, 60)
    Image.open(CHINA).resize((60, 40)).save(tmp_path / "whole.jpg", exif=exif)
    rng, whole, refused = np.random.default_rng(0), (tmp_path / "whole.jpg").read_bytes(), 0
    for case in range(200):
        damaged = np.frombuffer(whole, np.uint8).copy()
        if case % 4:
            damaged[rng.integers(0, rng.choice([64, len(whole)]), 5)] = rng.integers(0, 256, 5)
        else:
            damaged = damaged[: rng.integers(len(whole))]
        (tmp_path / "damaged.jpg").write_bytes(damaged.tobytes())
        try:
            assert np.isfinite(load_image(tmp_path / "damaged.jpg", Preprocessing(size=8))).all()
        except VitportError:
            refused += 1
    assert 50 < refused < 190
