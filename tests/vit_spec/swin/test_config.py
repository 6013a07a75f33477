"""A config that contradicts itself is refused in one sentence, and one that does not survives JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.small_configs import SWIN_CONFIGS
from vit_spec import SwinConfig, VitportError, config_from_dict
from vit_spec.swin.config import FIELDS

CONTRADICTIONS = [
    ({"version": 3}, "version=3 is unknown: choose 1 or 2"),
    ({"version": True}, "version=True is unknown"),
    ({"image_size": (225, 3), "margin_rule": "drop"}, "image_size=225x3 has no whole patch of patch_size=4, and"),
    ({"margin_rule": "crop"}, "margin_rule='crop' is unknown: choose one of pad, drop"),
    ({"image_size": 0}, "image_size=0 is too small"),
    ({"patch_size": 0}, "patch_size=0 is too small"),
    ({"embed_dim": 96.0}, "embed_dim=96.0 has the wrong type: it must be int"),
    ({"embed_dim": 100}, "The width 100 of stage 0 does not divide among num_heads=3"),
    ({"num_heads": (3, 6, 12)}, r"num_heads=\(3, 6, 12\) and depths=\(2, 2, 6, 2\) must have the same length"),
    ({"num_heads": (3, 6, 12, 0)}, "num_heads=0 is too small"),
    ({"num_heads": 3}, "num_heads=3 must be a list of whole numbers"),
    ({"depths": (2, 2, 6, 0)}, "depths=0 is too small"),
    ({"depths": (2, 2, 6, 2.0)}, r"depths=\(2, 2, 6, 2.0\) must be a list of whole numbers"),
    ({"depths": ()}, "depths=0 is too small"),
    ({"depths": (2, 2)}, r"num_heads=\(3, 6, 12, 24\) and depths=\(2, 2\) must have the same length"),
    ({"depths": (2, 2), "window_sizes": (7, 7, 14, 7)}, "window_sizes=.* does not fit 2 stages: give one int, or an"),
    ({"window_sizes": (7, 7)}, r"window_sizes=\(7, 7\) does not fit 4 stages"),
    ({"window_sizes": (7, 7, 7, (7, 7, 7))}, r"window_sizes=\(7, 7, 7\) is not a size"),
    ({"window_sizes": 0}, "window_sizes=0 is too small"),
    ({"window_sizes": None}, "window_sizes=None does not fit 4 stages"),
    ({"window_sizes": (7, 7, 7, (7, 8)), "window_rule": "min"}, "window_rule='min' shrinks both sides"),
    ({"window_rule": "shrink"}, "window_rule='shrink' is unknown: choose one of axis, min, pad, never"),
    ({"pad_order": "pad"}, "pad_order='pad' is unknown: choose one of roll_pad, pad_roll"),
    ({"pretrained_window_sizes": 7}, "pretrained_window_sizes=.* belongs to version 2, but version=1"),
    ({"pretrained_window_sizes": -1, "version": 2}, "pretrained_window_sizes=-1 is negative"),
    ({"pretrained_window_sizes": 1, "version": 2}, "pretrained_window_sizes=.* has a side of 1"),
    ({"mlp_ratio": 0.001}, r"mlp_ratio \* embed_dim=0 is too small"),
    ({"norm_eps": 0.0}, "norm_eps=0.0 is not positive"),
    ({"patch_norm_eps": -1.0}, "patch_norm_eps=-1.0 is not positive"),
    ({"stage_norms": (3,)}, r"stage_norms=\(3,\) must be rising numbers of stages before the last, from 0 to 2"),
    ({"stage_norms": (1, 0)}, r"stage_norms=\(1, 0\) must be rising"),
    ({"final_norm": False}, "num_classes=1000 needs final_norm=True"),
    ({"drop_path_rate": 1.0}, r"drop_path_rate must be in \[0, 1\); got 1.0"),
    ({"qkv_bias": 1}, "qkv_bias=1 has the wrong type: it must be bool"),
    ({"depth": 12}, "SwinConfig has no field depth: its fields are version, image_size"),
]


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS, ids=lambda value: str(value)[:40])
def test_a_contradiction_is_refused_with_its_value(changes, message) -> None:
    with pytest.raises(VitportError, match=message) as caught:
        SwinConfig().replace(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SWIN_CONFIGS)
def test_json_gives_the_same_config(name: str) -> None:
    config = SWIN_CONFIGS[name]
    assert SwinConfig.from_json(config.to_json()) == config
    assert config_from_dict(json.loads(config.to_json())) == config
    assert hash(SwinConfig.from_json(config.to_json())) == hash(config)


def test_the_small_configs_use_every_field() -> None:
    for name in set(FIELDS) - {"drop_rate", "attn_drop_rate", "drop_path_rate"}:
        assert len({getattr(config, name) for config in SWIN_CONFIGS.values()} | {getattr(SwinConfig(), name)}) > 1, (
            name
        )
    assert tuple(field.name for field in dataclasses.fields(SwinConfig)) == FIELDS


def test_an_int_is_a_square_window_of_every_stage() -> None:
    config = SwinConfig().replace(window_sizes=(7, (7, 14), 14, 7))
    assert config.window_sizes == ((7, 7), (7, 14), (14, 14), (7, 7))
    assert config.replace(window_sizes=8).window_sizes == ((8, 8),) * 4
    fewer = SwinConfig().replace(depths=(2, 2), num_heads=(3, 6))
    assert (fewer.window_sizes, fewer.pretrained_window_sizes) == (((7, 7),) * 2, ((0, 0),) * 2)


def test_stages_halve_the_map_rounded_up_and_double_the_width() -> None:
    config = SwinConfig().replace(image_size=(36, 100))
    assert config.map_sizes == ((9, 25), (5, 13), (3, 7), (2, 4))
    assert config.widths == (96, 192, 384, 768)
    assert (config.num_features, config.hidden_dim(1)) == (768, 768)


def test_drop_path_rises_over_all_stages() -> None:
    """Liu et al. 2021, appendix A2.1: the rates of Swin-T's 12 blocks reach 0.2."""
    rates = SwinConfig(drop_path_rate=0.2).drop_path_rates
    assert rates == pytest.approx([0.2 * block / 11 for block in range(12)])
