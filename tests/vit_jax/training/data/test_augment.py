"""Oracles: formulas of the papers and of torchvision's and timm's documentation in numpy, and statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from conversion.images.image import crop
from tests.vit_jax.training.data.folders import smooth_image
from vit_jax.training.data import Augmentation, RandAugment
from vit_jax.training.data.augment import augment, erased, random_box, random_crop, shifted
from vit_jax.training.data.colour import jittered, three_augment
from vit_jax.training.data.rand_augment import OPERATIONS, ORIGINAL, cutout, rand_augment
from vit_spec import Preprocessing, VitportError

pytestmark = pytest.mark.jax_alone

GREY = np.array([299, 587, 114]) / 1000
"""ITU-R 601, as Pillow documents its mode L."""
FILL = (10, 20, 30)
DRAWS = 4000
LIKELY = 1e-3
"""Seeds are fixed, so a test always passes or always fails; a p-value below this is not an accident of the seed."""


def _image(seed: int = 0, size: tuple[int, int] = (30, 40)) -> Image.Image:
    return Image.fromarray(smooth_image(seed, size))


def test_random_boxes_have_the_areas_and_ratios_of_the_options() -> None:
    """In an image so large that all boxes fit, area and log ratio are uniform, and so are the places."""
    options = Augmentation(scale=(0.05, 0.2), ratio=(0.5, 2.0))
    rng = np.random.default_rng(0)
    left, top, right, bottom = np.array([random_box(2000, 2000, options, rng) for _ in range(DRAWS)]).T
    width, height = right - left, bottom - top
    assert stats.kstest(width * height / 2000**2, stats.uniform(0.05, 0.15).cdf).pvalue > LIKELY
    assert stats.kstest(np.log(width / height), stats.uniform(-math.log(2), math.log(4)).cdf).pvalue > LIKELY
    for start, room in ((left, 2000 - width), (top, 2000 - height)):
        assert stats.kstest((start + rng.random(DRAWS)) / (room + 1), stats.uniform().cdf).pvalue > LIKELY
        assert (start >= 0).all()
        assert (start <= room).all()


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1), (3, 2)])
def test_a_box_that_never_fits_becomes_the_middle_of_an_allowed_ratio(height, width) -> None:
    """torchvision's RandomResizedCrop: the largest part whose ratio is the nearest allowed, in the middle."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        left, top, right, bottom = random_box(height, width, Augmentation(scale=(1.0, 1.0)), rng)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        if max(height, width) == 1000:
            assert (right - left, bottom - top) == ((13, 10) if width == 1000 else (10, 13))
            assert (left, top) == ((493, 0) if width == 1000 else (0, 493))


def test_a_random_resized_crop_is_pillows_crop_and_resize() -> None:
    """The numbers that the box takes are drawn again from the same seed."""
    preprocessing = Preprocessing(size=(8, 10))
    options = Augmentation(flip=0)
    box = random_box(30, 40, options, np.random.default_rng(5))
    expected = _image().crop(box).resize((10, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(augment(_image(), preprocessing, options, np.random.default_rng(5)), expected)


def test_half_of_all_images_are_flipped() -> None:
    preprocessing = Preprocessing(size=(30, 40), resize="squash")
    for flip in (0.0, 0.5, 1.0):
        rng = np.random.default_rng(0)
        options = Augmentation(crop="none", flip=flip)
        results = [augment(_image(), preprocessing, options, rng) for _ in range(400)]
        flipped = sum(np.array_equal(result, smooth_image(0, (30, 40))[:, ::-1]) for result in results)
        straight = sum(np.array_equal(result, smooth_image(0, (30, 40))) for result in results)
        assert flipped + straight == 400
        assert stats.binomtest(flipped, 400, flip).pvalue > LIKELY


def test_a_shift_is_padding_with_black_and_cutting_anywhere() -> None:
    pixels = np.asarray(_image()).astype(int) + 1
    pixels = pixels.clip(1, 255).astype(np.uint8)
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)))
    rng = np.random.default_rng(0)
    counts = np.zeros((5, 5), int)
    for _ in range(1000):
        result = np.asarray(shifted(Image.fromarray(pixels), 2, rng))
        (at,) = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 30, x : x + 40], result)]
        counts[at] += 1
    assert stats.chisquare(counts.ravel()).pvalue > LIKELY


def test_a_simple_random_crop_is_mirrored_at_the_edges() -> None:
    """DeiT III: Resize of the shorter side, RandomCrop with padding 4 and padding_mode reflect."""
    preprocessing = Preprocessing(size=20)
    scaled = np.asarray(_image().resize((26, 20), Image.Resampling.BICUBIC))  # int(20 * 40 / 30) = 26
    padded = np.pad(scaled, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    rng, places = np.random.default_rng(0), set()
    for _ in range(600):
        result = augment(_image(), preprocessing, Augmentation(crop="resize_crop", flip=0), rng)
        (at,) = [(y, x) for y in range(9) for x in range(15) if np.array_equal(padded[y : y + 20, x : x + 20], result)]
        places.add(at)
    assert {y for y, _ in places} == set(range(9))
    assert {x for _, x in places} == set(range(15))


def _blend(degenerate: np.ndarray, pixels: np.ndarray, factor: float) -> np.ndarray:
    return (degenerate + factor * (pixels - degenerate)).clip(0, 255)


def _enhanced(name: str, pixels: np.ndarray, factor: float) -> np.ndarray:
    grey = (pixels @ GREY)[..., None]
    if name == "brightness":
        return _blend(np.zeros(1), pixels, factor)
    if name == "contrast":
        return _blend(np.array(round(grey.mean())), pixels, factor)
    if name == "color":
        return _blend(grey, pixels, factor)
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = pixels.copy()
    height, width = pixels.shape[:2]
    smooth[1:-1, 1:-1] = sum(
        kernel[y, x] * pixels[y : y + height - 2, x : x + width - 2] for y in range(3) for x in range(3)
    )
    return _blend(smooth, pixels, factor)


def _moved(pixels: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear at ``matrix`` times the centre (x, y) of each pixel plus ``offset``; and where that is inside."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    u, v = np.tensordot(matrix, np.stack([x, y]), 1) + offset[:, None, None]
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v = (u - 0.5).clip(0, width - 1), (v - 0.5).clip(0, height - 1)
    left, top = u.astype(int).clip(0, width - 2), v.astype(int).clip(0, height - 2)
    a, b = (u - left)[..., None], (v - top)[..., None]
    upper = pixels[top, left] * (1 - a) + pixels[top, left + 1] * a
    lower = pixels[top + 1, left] * (1 - a) + pixels[top + 1, left + 1] * a
    return np.where(inside[..., None], upper * (1 - b) + lower * b, FILL), inside


def _expected(name: str, pixels: np.ndarray, strength: float, sign: int) -> np.ndarray:
    """What timm's documentation says of the increasing set, in numpy."""
    height, width = pixels.shape[:2]
    one, none = np.eye(2), np.zeros(2)
    if name in ("color", "contrast", "brightness", "sharpness"):
        return _enhanced(name, pixels, max(0.1, 1 + sign * 0.9 * strength))
    if name == "rotate":
        angle = math.radians(30 * strength * sign)
        matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle = np.array([width / 2, height / 2])
        return _moved(pixels, matrix, middle - matrix @ middle)[0]
    if name.startswith("shear"):
        level = 0.3 * strength * sign
        matrix = np.array([[1, level], [0, 1]]) if name == "shear_x" else np.array([[1, 0], [level, 1]])
        return _moved(pixels, matrix, none)[0]
    if name.startswith("translate"):
        level = 0.45 * strength * sign
        return _moved(pixels, one, np.array([level * width, 0] if name == "translate_x" else [0, level * height]))[0]
    return {
        "auto_contrast": lambda: np.stack(
            [(c - c.min()) * 255 / (c.max() - c.min()) for c in np.moveaxis(pixels, 2, 0)], axis=2
        ),
        "equalize": lambda: np.stack([_equalized(c.astype(int)) for c in np.moveaxis(pixels, 2, 0)], axis=2),
        "invert": lambda: 255 - pixels,
        "posterize": lambda: pixels.astype(int) & (256 - 2 ** (8 - (4 - int(4 * strength)))),
        "solarize": lambda: np.where(pixels >= 256 - int(256 * strength), 255 - pixels, pixels),
        "solarize_add": lambda: np.where(pixels < 128, pixels + int(110 * strength), pixels).clip(0, 255),
    }[name]()


def _equalized(channel: np.ndarray) -> np.ndarray:
    """Each value becomes the share of pixels below it, of all but those of the brightest value, times 255."""
    counts = np.bincount(channel.ravel(), minlength=256)
    step = (counts.sum() - counts[channel.max()]) // 255
    below = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return ((step // 2 + below) // step).clip(0, 255)[channel]


@pytest.mark.parametrize("strength", [0.0, 0.37, 0.9, 1.0])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_every_operation_of_randaugment_is_its_documented_formula(name, strength) -> None:
    """Within one level of 255, Pillow's rounding and cutting; 1 % of a moved image's pixels lie on its edge."""
    pixels = np.asarray(_image(2)).astype(np.float64)
    for sign in (1, -1):
        got = np.asarray(OPERATIONS[name](_image(2), strength, sign, FILL)).astype(np.float64)
        difference = np.abs(got - _expected(name, pixels, strength, sign)).max(axis=2)
        assert np.quantile(difference, 0.98 if name[:4] in ("rota", "shea", "tran") else 1) <= 1.5
    assert got.shape == pixels.shape


def test_there_are_the_fifteen_operations_of_timms_increasing_set() -> None:
    assert len(OPERATIONS) == 15
    changed = [
        name
        for name in OPERATIONS
        if np.any(np.asarray(OPERATIONS[name](_image(2), 0.9, 1, FILL)) != smooth_image(2, (30, 40)))
    ]
    assert changed == list(OPERATIONS)


def test_randaugment_draws_operations_strengths_and_signs_as_its_options_say(monkeypatch) -> None:
    calls = []
    for name in list(OPERATIONS):
        monkeypatch.setitem(
            OPERATIONS,
            name,
            lambda image, strength, sign, fill, name=name: calls.append((name, strength, sign)) or image,
        )
    rng, options = np.random.default_rng(0), RandAugment(layers=2, magnitude=7, spread=1.5, probability=0.5)
    for _ in range(DRAWS):
        rand_augment(_image(), options, (0.5, 0.5, 0.5), rng)
    names, strengths, signs = zip(*calls, strict=True)
    assert stats.binomtest(len(calls), 2 * DRAWS, 0.5).pvalue > LIKELY
    assert stats.chisquare([names.count(name) for name in OPERATIONS]).pvalue > LIKELY
    assert stats.binomtest(signs.count(1), len(signs), 0.5).pvalue > LIKELY
    levels = 10 * np.array(strengths)
    assert levels.min() >= 0
    assert levels.max() == 10
    within = levels[levels < 10]
    assert stats.kstest(within, stats.truncnorm(-7 / 1.5, 3 / 1.5, 7, 1.5).cdf).pvalue > LIKELY
    assert stats.binomtest(len(levels) - len(within), len(levels), stats.norm.sf(2)).pvalue > LIKELY


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("strength", [0.0, 0.37, 0.9, 1.0])
def test_the_authors_levels_are_their_formulas(strength, sign) -> None:
    """Kept bits, threshold and factor of Cubuk et al.'s code; factors by way of the increasing set, proven above."""
    pixels = np.asarray(_image(2)).astype(int)
    unit = 2 ** (8 - int(4 * strength))
    threshold = int(256 * strength)
    expected = {"posterize": pixels // unit * unit, "solarize": np.where(pixels < threshold, pixels, 255 - pixels)}
    for name, array in expected.items():
        np.testing.assert_array_equal(np.asarray(ORIGINAL[name](_image(2), strength, sign, FILL)), array)
    for name in ("color", "contrast", "brightness", "sharpness"):
        other = OPERATIONS[name](_image(2), abs(2 * strength - 1), 1 if strength > 0.5 else -1, FILL)
        np.testing.assert_allclose(np.asarray(ORIGINAL[name](_image(2), strength, sign, FILL)), other, atol=1)
    changed = {"posterize", "solarize", "color", "contrast", "brightness", "sharpness"}
    assert {name for name in OPERATIONS if ORIGINAL[name] is not OPERATIONS[name]} == changed


def test_cutout_covers_a_square_around_any_pixel() -> None:
    """40 pixels of 224 on each side of the pixel at the largest strength (the authors' code), cut off at the edges."""
    image, half, centres = Image.new("RGB", (224, 224)), 20, []
    for seed in range(200):
        covered = np.asarray(cutout(image, 0.5, FILL, np.random.default_rng(seed)))
        rows, columns = (np.flatnonzero((covered == FILL).all(axis=2).any(axis=axis)) for axis in (1, 0))
        assert (covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == FILL).all()
        for places in (rows, columns):
            first, last = places[0], places[-1] + 1
            centres.append(last - half if last < 224 else first + half)
            assert last - first == 2 * half or (last - first >= half and (first == 0 or last == 224))
    assert stats.kstest(np.array(centres) / 224, stats.uniform().cdf).pvalue > LIKELY


def test_the_authors_set_draws_sixteen_operations(monkeypatch) -> None:
    calls = []
    for name in list(ORIGINAL):
        monkeypatch.setitem(ORIGINAL, name, lambda image, *rest, name=name: calls.append(name) or image)
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        rand_augment(_image(), RandAugment(1, "original", 10.0), (0.5, 0.5, 0.5), rng)
    counts = [calls.count(name) for name in ORIGINAL]
    assert stats.chisquare([*counts, DRAWS - sum(counts)]).pvalue > LIKELY  # Cutout is the rest


def test_grey_images_stay_grey_under_every_operation() -> None:
    grey = Image.fromarray(smooth_image(2)[..., 0])
    for operation in [*OPERATIONS.values(), *ORIGINAL.values()]:
        assert operation(grey, 0.9, 1, 7).mode == "L"
    for levels in ("increasing", "original"):
        options = RandAugment(50, levels)
        assert rand_augment(grey, options, (0.5,), np.random.default_rng(0)).mode == "L"
    for seed in range(9):
        assert three_augment(grey, np.random.default_rng(seed)).mode == "L"


def test_jitter_multiplies_brightness_contrast_and_saturation_in_any_order() -> None:
    """The six orders are all tried in numpy; factors come from the same seed. Each step rounds by up to one level."""
    pixels = np.asarray(_image(3)).astype(np.float64)
    names = ("brightness", "contrast", "color")
    orders = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        order, expected = rng.permutation(3), pixels
        for kind in order:
            expected = np.floor(_enhanced(names[kind], expected, rng.uniform(0.7, 1.3)))
        got = np.asarray(jittered(_image(3), 0.3, np.random.default_rng(seed))).astype(np.float64)
        assert np.abs(got - expected).max() <= 4
        orders.add(tuple(order.tolist()))
    assert len(orders) == 6


def test_three_augment_is_grey_or_solarised_or_blurred_by_equal_chance() -> None:
    """The blur's width is that of scipy's nearest Gaussian; below half a pixel they cannot be told apart."""
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3)).astype(np.float64)
    image = Image.fromarray(pixels.astype(np.uint8))
    grey = np.repeat((pixels @ GREY)[..., None], 3, axis=2)
    solarised = np.where(pixels >= 128, 255 - pixels, pixels)
    sigmas = np.arange(0.1, 2.05, 0.1)
    blurs = np.stack([ndimage.gaussian_filter(pixels, (sigma, sigma, 0), mode="nearest") for sigma in sigmas])
    rng, counts, widths = np.random.default_rng(0), [0, 0, 0], []
    for _ in range(900):
        got = np.asarray(three_augment(image, rng)).astype(np.float64)
        if np.abs(got - grey).max() <= 1:
            counts[0] += 1
        elif np.abs(got - solarised).max() == 0:
            counts[1] += 1
        else:
            widths.append(sigmas[np.abs(got - blurs).mean((1, 2, 3)).argmin()])
            counts[2] += 1
    assert stats.chisquare(counts).pvalue > LIKELY
    clear = np.array([width for width in widths if width > 0.75])
    assert stats.binomtest(len(clear), len(widths), 1.25 / 1.9).pvalue > LIKELY
    spread = clear + rng.uniform(-0.05, 0.05, len(clear))
    assert stats.kstest(spread, stats.uniform(0.75, 1.25).cdf).pvalue > LIKELY


def test_erasing_fills_a_rectangle_of_the_papers_area_and_ratio_with_the_datas_noise() -> None:
    preprocessing = Preprocessing(size=(100, 100), mean=(0.5, 0.4, 0.6), std=(0.05, 0.07, 0.02))
    rng, areas, ratios, noise = np.random.default_rng(0), [], [], []
    blank = np.zeros((100, 100, 3), np.uint8)
    for _ in range(1500):
        where = erased(blank, preprocessing, rng)
        rows, columns = np.flatnonzero(where.any((1, 2))), np.flatnonzero(where.any((0, 2)))
        patch = where[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert patch.all()
        assert not where.sum() - patch.sum()
        areas.append(patch[..., 0].size / 100**2)
        ratios.append(len(rows) / len(columns))
        noise.append(patch.reshape(-1, 3)[:50])
    assert not blank.any()
    assert min(areas) > 0.018
    assert max(areas) < 0.34
    assert 0.28 < min(ratios) < 0.35
    assert 3 < max(ratios) < 3.5
    small = np.array(areas) < 0.09  # all such rectangles fit: their ratios are as drawn, log-uniform
    logs = np.log(np.array(ratios)[small])
    assert stats.kstest(logs, stats.uniform(-math.log(1 / 0.3), 2 * math.log(1 / 0.3)).cdf).pvalue > LIKELY
    values = np.concatenate(noise) / 255
    # 75,000 values: means have a standard error of at most 0.07 / 274 = 2.6e-4, deviations one of 0.26 %, and rounding
    # to 8 bits adds 0.16 % to the smallest.
    np.testing.assert_allclose(values.mean(0), preprocessing.mean, atol=0.002)
    np.testing.assert_allclose(values.std(0), preprocessing.std, rtol=0.02)


def test_erasing_happens_with_its_probability() -> None:
    preprocessing = Preprocessing(size=(30, 40), resize="squash")
    rng, options = np.random.default_rng(0), Augmentation(crop="none", flip=0, erasing=0.25)
    changed = sum(
        not np.array_equal(augment(_image(), preprocessing, options, rng), smooth_image(0, (30, 40)))
        for _ in range(800)
    )
    assert stats.binomtest(changed, 800, 0.25).pvalue > LIKELY


def test_all_at_once_gives_the_models_size_and_is_decided_by_the_seed() -> None:
    options = Augmentation(randaugment=RandAugment(2, spread=0.5, probability=0.5), jitter=0.3, erasing=0.25)
    for channels, image in ((3, _image()), (1, _image().convert("L"))):
        preprocessing = Preprocessing(size=(9, 11), mean=(0.5,) * channels, std=(0.2,) * channels)
        for crop_ in ("random_resized", "resize_crop", "shift", "none"):
            chosen = Augmentation(crop=crop_, randaugment=options.randaugment, jitter=0.3, erasing=0.25)
            results = [augment(image, preprocessing, chosen, np.random.default_rng(seed)) for seed in (1, 1, 2)]
            assert results[0].shape == (9, 11, channels)
            assert results[0].dtype == np.uint8
            np.testing.assert_array_equal(results[0], results[1])
            assert not np.array_equal(results[0], results[2])


def test_no_augmentation_is_the_evaluations_crop() -> None:
    preprocessing = Preprocessing(size=(12, 14))
    got = augment(_image(), preprocessing, Augmentation(crop="none", flip=0), np.random.default_rng(0))
    np.testing.assert_array_equal(got, np.asarray(crop(_image(), preprocessing)))


def test_an_image_as_narrow_as_one_pixel_is_cut_at_random_too() -> None:
    """Mirroring by 4 needs no more than numpy's repeated reflection."""
    assert random_crop(_image().resize((1, 5)), (1, 1), np.random.default_rng(0)).size == (1, 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scale": (0.5, 0.2)}, r"augment\.scale must be .*; got \(0\.5, 0\.2\)"),
        ({"scale": (0.0, 1.0)}, r"augment\.scale must be .*; got \(0\.0, 1\.0\)"),
        ({"ratio": (0.0, 1.0)}, r"augment\.ratio must be .*; got \(0\.0, 1\.0\)"),
        ({"pad": -1}, r"augment\.pad must be .*; got -1"),
        ({"flip": 1.5}, r"augment\.flip must be .*; got 1\.5"),
        ({"erasing": float("nan")}, r"augment\.erasing must be .*; got nan"),
        ({"jitter": -0.1}, r"augment\.jitter must be .*; got -0\.1"),
        ({"three_augment": True, "randaugment": RandAugment(2)}, "are alternatives: choose one"),
    ],
)
def test_augmentations_that_cannot_be_are_refused(options, sentence) -> None:
    with pytest.raises(VitportError, match=sentence):
        Augmentation(**options)


@pytest.mark.parametrize("options", [{"layers": -1}, {"magnitude": 11}, {"spread": -1}, {"probability": 2}])
def test_strengths_that_cannot_be_are_refused(options) -> None:
    ((name, value),) = options.items()
    with pytest.raises(VitportError, match=rf"augment\.randaugment\.{name} must be .*; got {value}"):
        RandAugment(**options)
