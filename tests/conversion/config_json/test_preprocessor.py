"""preprocessor_config.json. Oracle: transformers' own image processors, on an image that is not square."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.models.auto import configuration_auto, image_processing_auto

from conversion.config_json.preprocessor import _OF_MODEL, CLASSES, preprocessing
from conversion.images.image import crop, normalize
from vit_spec import VitportError

RNG = np.random.default_rng(0)
IMAGE = Image.fromarray(RNG.integers(0, 256, (61, 47, 3), dtype=np.uint8))
NUMBERS = {"image_mean": [0.5, 0.3, 0.2], "image_std": [0.2, 0.3, 0.5]}


SQUASHING = ["GotOcr2", "Tipsv2"]
"""Those of InternVL and TIPSv2, which are read for whole images; InternVL's cuts out no centre."""
FIXED = [kind for kind in CLASSES if kind not in ("Siglip2", *SQUASHING)]
"""Those that make every image the same size."""


def class_of(kind: str) -> Any:
    """transformers' class on Pillow; TIPSv2 has one on torchvision alone, whose source is run with the other."""
    if kind != "Tipsv2":
        return getattr(transformers, f"{kind}ImageProcessorPil")
    package = "transformers.models.tipsv2"
    path = Path(transformers.__file__).parent / "models" / "tipsv2" / "image_processing_tipsv2.py"
    known: dict[str, Any] = {"__name__": f"{package}.pil", "__package__": package}
    exec(path.read_text().replace("TorchvisionBackend", "PilBackend").replace("@auto_docstring\n", ""), known)
    return known["Tipsv2ImageProcessor"]


def theirs(kind: str, told: dict[str, Any]) -> np.ndarray:
    """(H, W, C) of transformers' class; those of torchvision resample with its own rounding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processor = class_of(kind)(**told)
        return np.asarray(processor(IMAGE, return_tensors="np")["pixel_values"][0]).transpose(1, 2, 0)


def ours(told: dict[str, Any], config: dict[str, Any] | None = None) -> np.ndarray:
    steps = preprocessing(told, config or {}, 3)
    return normalize(crop(IMAGE, steps), steps)


def assert_same(told: dict[str, Any], kind: str) -> None:
    """Both divide, subtract and divide in float32: 6e-8 of pixels up to 30, in another order."""
    found, expected = ours(told | {"image_processor_type": f"{kind}ImageProcessor"}), theirs(kind, told)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", FIXED)
def test_what_a_file_leaves_out_is_as_in_its_class(kind) -> None:
    assert_same({}, kind)


@pytest.mark.parametrize("kind", FIXED)
@pytest.mark.parametrize("change", [
    {"do_normalize": False}, {"rescale_factor": 1 / 127.5}, {"image_mean": 0.5, "image_std": 0.25}, NUMBERS,
    {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 50.0, 40.0]},
    {"resample": 0}, {"resample": 1}, {"resample": 2}, {"resample": 3}, {"resample": 4}, {"resample": 5},
    {"size": {"height": 24, "width": 20}, "do_center_crop": False},
    {"size": {"height": 25, "width": 25}, "do_center_crop": True, "crop_size": 20},
    {"size": {"shortest_edge": 25}, "do_center_crop": True, "crop_size": {"height": 20, "width": 20}},
    {"size": {"shortest_edge": 24}, "do_center_crop": True, "crop_size": 24},
    {"size": {"shortest_edge": 27}, "do_center_crop": True, "crop_size": {"height": 22, "width": 26}},
    {"size": [24, 24], "do_center_crop": False},
    {"do_pad": None, "do_convert_rgb": None, "data_format": "channels_first"}, {"offset": True, "unknown": 3},
])  # fmt: skip
def test_a_value_means_what_it_means_to_transformers(kind, change) -> None:
    assert_same(change, kind)


@pytest.mark.parametrize("kind", SQUASHING)
@pytest.mark.parametrize("change", [
    {}, {"do_normalize": True, **NUMBERS}, NUMBERS, {"do_normalize": False}, {"size": {"height": 24, "width": 20}},
    {"resample": 2}, {"resample": 3}, {"rescale_factor": 1 / 127.5}, {"crop_to_patches": False},
])  # fmt: skip
def test_a_whole_image_is_squashed_as_by_its_class(kind, change) -> None:
    assert_same(change, kind)


@pytest.mark.parametrize("told", [{"crop_to_patches": True}, {"do_center_crop": True}])
def test_tiles_and_a_centre_are_refused_where_the_class_cuts_none(told) -> None:
    with pytest.raises(VitportError, match=f"has {next(iter(told))}=True"):
        ours(told | {"image_processor_type": "GotOcr2ImageProcessor"})


def test_one_number_is_both_sides_or_the_shorter_one() -> None:
    for kind in FIXED:
        assert_same({"size": 26, "do_center_crop": True, "crop_size": 22}, kind)


@pytest.mark.parametrize(("key", "told"), [
    ("do_resize", {"do_resize": False}), ("do_rescale", {"do_rescale": False}), ("resample", {"resample": 9}),
    ("do_pad", {"do_pad": True}), ("size", {"size": {"shortest_edge": 24}}), ("size", {"size": {"longest_edge": 24}}),
    ("size", {"size": {"shortest_edge": 24, "longest_edge": 30}}), ("size", {"size": -3}), ("size", {"size": "24"}),
    ("crop_size", {"do_center_crop": True, "crop_size": 256}), ("image_mean", {"image_mean": [0.5]}),
    ("image_std", {"image_std": [0.1, "x", 0.2]}), ("image_std", {"image_std": 0.0}), ("size", {"size": None}),
    ("do_rescale", {"do_rescale": "no"}), ("do_normalize", {"do_normalize": None}), ("resample", {"resample": None}),
    ("rescale_factor", {"rescale_factor": 0}), ("rescale_factor", {"rescale_factor": 10}),
    ("image_processor_type", {"image_processor_type": "ConvNextImageProcessor"}),
    ("image_processor_type", {"image_processor_type": "VivitImageProcessor", "offset": True}),
    ("feature_extractor_type", {"feature_extractor_type": "ASTFeatureExtractor"}),
])  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_its_key(key, told) -> None:
    with pytest.raises(VitportError, match=f"has {key}="):
        ours({"image_processor_type": "ViTImageProcessor"} | told if "feature_extractor_type" not in told else told)


def test_siglip2_sees_a_square_image_as_patches_of_its_grid() -> None:
    """transformers gives (patches, pixels of a patch); other images keep their shape there."""
    square = Image.fromarray(RNG.integers(0, 256, (61, 61, 3), dtype=np.uint8))
    told = {"max_num_patches": 36, "patch_size": 8, "image_mean": [0.5, 0.3, 0.2]}
    steps = preprocessing(told | {"image_processor_type": "Siglip2ImageProcessor"}, {}, 3)
    rows = transformers.Siglip2ImageProcessorPil(**told)(square, return_tensors="np")["pixel_values"][0]
    expected = np.asarray(rows).reshape(6, 6, 8, 8, 3).swapaxes(1, 2).reshape(48, 48, 3)
    np.testing.assert_allclose(normalize(crop(square, steps), steps), expected, rtol=0, atol=1e-5)


def test_random_files_give_transformers_pixels_or_are_refused() -> None:
    """A hundred files in which every key is there with a chance of three in ten."""
    draw = random.Random(3)
    values: dict[str, list[Any]] = {
        "do_normalize": [True, False, None], "rescale_factor": [1 / 255, 0.00392156862, 1 / 127.5, 1.0],
        "do_rescale": [True, True, False], "resample": [*range(7), None], "do_resize": [True, True, None, False],
        "size": [24, 31, {"height": 24, "width": 24}, {"height": 22, "width": 30}, {"shortest_edge": 27},
                 [20, 30], None],
        "crop_size": [20, 24, {"height": 22, "width": 22}, {"height": 22, "width": 30}, None],
        "do_center_crop": [True, False, None], "image_mean": [0.4, [0.1, 0.2, 0.3], None],
        "image_std": [0.4, [0.1, 0.2, 0.3], None], "do_convert_rgb": [True, False], "do_pad": [None, False],
    }  # fmt: skip
    read = 0
    for _ in range(100):
        kind = draw.choice(FIXED)
        told = {key: draw.choice(choices) for key, choices in values.items() if draw.random() < 0.3}
        try:
            assert_same(told, kind)
            read += 1
        except VitportError as error:
            assert str(error).startswith("preprocessor_config.json has "), error
    assert 30 <= read < 100


def test_names_of_other_times_are_the_same_classes() -> None:
    for name in ("ViTImageProcessorFast", "ViTFeatureExtractor", "ViTImageProcessorPil"):
        np.testing.assert_array_equal(ours({"image_processor_type": name}), theirs("ViT", {}))
    np.testing.assert_array_equal(ours({"feature_extractor_type": "CLIPFeatureExtractor"}), theirs("CLIP", {}))


def test_a_file_that_names_no_class_has_the_one_of_its_model() -> None:
    """transformers' own table; DINOv2 with registers has DINOv2's by its configuration's."""
    assert set(_OF_MODEL) <= set(vars(configuration_auto)["CONFIG_MAPPING_NAMES"])
    for model_type, kind in _OF_MODEL.items():
        if kind in FIXED:
            np.testing.assert_array_equal(ours({}, {"model_type": model_type}), theirs(kind, {}))
        if (names := vars(image_processing_auto)["IMAGE_PROCESSOR_MAPPING_NAMES"].get(model_type)) is not None:
            assert names.get("pil", "Tipsv2ImageProcessorPil") == f"{kind}ImageProcessorPil"
