"""Named models. Oracles: timm's published sizes, and transformers' models built on no device at all."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from vit_spec import SwinConfig, VitportError, count_parameters, forward_flops, get_model, list_models
from vit_spec.swin.models import MODELS, UNSUPPORTED
from vit_spec.swin.windows import windowings

TIMM = {  # parameters; windows and shifts of the stages as timm 1.0.31 builds them
    "swin_tiny_patch4_window7_224": (28_288_354, (7, 7, 7, 7), (3, 3, 3, 0)),
    "swin_small_patch4_window7_224": (49_606_258, (7, 7, 7, 7), (3, 3, 3, 0)),
    "swin_base_patch4_window7_224": (87_768_224, (7, 7, 7, 7), (3, 3, 3, 0)),
    "swin_base_patch4_window12_384": (87_903_584, (12, 12, 12, 12), (6, 6, 6, 0)),
    "swin_large_patch4_window7_224": (196_532_476, (7, 7, 7, 7), (3, 3, 3, 0)),
    "swin_large_patch4_window12_384": (196_735_516, (12, 12, 12, 12), (6, 6, 6, 0)),
    "swin_s3_tiny_224": (28_328_674, (7, 7, 14, 7), (3, 3, 0, 0)),
    "swin_s3_small_224": (49_737_298, (14, 14, 14, 7), (7, 7, 0, 0)),
    "swin_s3_base_224": (71_125_762, (7, 7, 14, 7), (3, 3, 0, 0)),
    "swinv2_tiny_window8_256": (28_347_154, (8, 8, 8, 8), (4, 4, 4, 0)),
    "swinv2_tiny_window16_256": (28_347_154, (16, 16, 16, 8), (8, 8, 0, 0)),
    "swinv2_small_window8_256": (49_728_418, (8, 8, 8, 8), (4, 4, 4, 0)),
    "swinv2_small_window16_256": (49_728_418, (16, 16, 16, 8), (8, 8, 0, 0)),
    "swinv2_base_window8_256": (87_918_816, (8, 8, 8, 8), (4, 4, 4, 0)),
    "swinv2_base_window16_256": (87_918_816, (16, 16, 16, 8), (8, 8, 0, 0)),
    "swinv2_base_window12_192": (109_280_841, (12, 12, 12, 6), (6, 6, 0, 0)),
    "swinv2_base_window12to16_192to256": (87_918_816, (16, 16, 16, 8), (8, 8, 0, 0)),
    "swinv2_base_window12to24_192to384": (87_918_816, (24, 24, 24, 12), (12, 12, 0, 0)),
    "swinv2_large_window12_192": (228_772_549, (12, 12, 12, 6), (6, 6, 0, 0)),
    "swinv2_large_window12to16_192to256": (196_739_932, (16, 16, 16, 8), (8, 8, 0, 0)),
    "swinv2_large_window12to24_192to384": (196_739_932, (24, 24, 24, 12), (12, 12, 0, 0)),
}
TORCHVISION = {  # parameters, less version 2's idle key biases; resize and crop
    "swin_t": (28_288_354, 232, 224),
    "swin_s": (49_606_258, 246, 224),
    "swin_b": (87_768_224, 238, 224),
    "swin_v2_t": (28_347_154, 260, 256),
    "swin_v2_s": (49_728_418, 260, 256),
    "swin_v2_b": (87_918_816, 272, 256),
}
PUBLISHED = {  # multiply-adds in thousand millions: Liu et al. 2021, table 1; Liu et al. 2022's model zoo
    "swin_tiny_patch4_window7_224": 4.5,
    "swin_small_patch4_window7_224": 8.7,
    "swin_base_patch4_window7_224": 15.4,
    "swin_base_patch4_window12_384": 47.0,
    "swin_large_patch4_window12_384": 103.9,
    "swinv2_tiny_window8_256": 5.9,
    "swinv2_small_window8_256": 11.5,
    "swinv2_base_window8_256": 20.3,
}


def test_every_name_is_here() -> None:
    assert {model.name for model in MODELS} == set(TIMM) | set(TORCHVISION)
    assert {model.name for model in list_models("swin*")} == set(TIMM) | set(TORCHVISION)


@pytest.mark.parametrize("name", TIMM)
def test_timms_names_have_its_parameters_windows_and_shifts(name: str) -> None:
    config = get_model(name).config
    assert isinstance(config, SwinConfig)
    size, windows, shifts = TIMM[name]
    assert count_parameters(config) == size
    assert [each.window for each in windowings(config)] == [(side, side) for side in windows]
    assert [each.shift for each in windowings(config)] == [(side, side) for side in shifts]
    assert (config.window_rule, config.pad_order) == ("axis", "roll_pad")
    assert [width // heads for width, heads in zip(config.widths, config.num_heads, strict=True)] == [32] * 4


def test_offsets_are_normalised_by_the_window_of_pretraining() -> None:
    for name, (_, windows, _) in TIMM.items():
        config = get_model(name).config
        assert isinstance(config, SwinConfig)
        expected = (12, 12, 12, 6) if "12to" in name else (0, 0, 0, 0)
        assert config.pretrained_window_sizes == tuple((side, side) for side in expected)
        assert config.image_size[0] == int(name.rpartition("to")[2].rpartition("_")[2])
        assert len(windows) == config.num_stages


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_names_have_its_parameters_and_preprocessing(name: str) -> None:
    model = get_model(name)
    parameters, resize, crop = TORCHVISION[name]
    assert count_parameters(model.config) == parameters
    assert model.preprocessing.size == (crop, crop)
    assert round(crop / model.preprocessing.crop_fraction) == resize
    assert isinstance(model.config, SwinConfig)
    assert (model.config.window_rule, model.config.pad_order) == ("pad", "pad_roll")


def test_preprocessing_is_timms() -> None:
    crops = {model.name: model.preprocessing.crop_fraction for model in MODELS if model.name in TIMM}
    assert crops == {name: 1.0 if name.endswith("384") else 0.9 for name in TIMM}


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_those_published(name: str) -> None:
    multiply_adds = forward_flops(get_model(name).config) / 2e9
    assert multiply_adds == pytest.approx(PUBLISHED[name], abs=0.1)  # published to 0.1; measured 0.083


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_flops_are_those_of_transformers(name: str) -> None:
    """torch's own counter over the products that the twin really makes."""
    config = get_model(name).config
    assert isinstance(config, SwinConfig)
    size = config.image_size[0]
    options = {"image_size": size, "num_labels": 1000, "window_size": config.window_sizes[0][0]}
    with torch.device("meta"):
        if config.version == 1:
            twin = transformers.SwinForImageClassification(transformers.SwinConfig(**options))
        else:
            twin = transformers.Swinv2ForImageClassification(transformers.Swinv2Config(**options))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin.eval()(torch.empty(1, 3, size, size, device="meta"))
    assert forward_flops(config) == counter.get_total_flops()


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_the_other_second_version_is_refused_by_name(name: str) -> None:
    with pytest.raises(VitportError, match=f"{name} is not supported: SwinV2-CR is another model than Swin v2"):
        get_model(name)


def test_all_sixteen_names_of_the_other_second_version_are_known() -> None:
    assert len(UNSUPPORTED) == 16
