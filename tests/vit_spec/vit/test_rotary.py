"""Rotary positions as part of a config, and their angles. Oracle: the papers' formulas, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from vit_spec import ViTConfig, VitportError
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary, Rotary, turns

ALL: list[Rotary] = [
    DinoV3Rotary(),
    DinoV3Rotary(theta=30.0, periods=tuple(1.0 + at for at in range(16))),
    AxialRotary(),
    AxialRotary(theta=100.0, order="wh", offset=1.0, reference_grid=(14, 16), pairs="halves"),
    MixedRotary(theta=5.0),
]


@pytest.mark.parametrize("rotary", ALL, ids=str)
def test_a_record_gives_back_the_positions_that_were_written(rotary: Rotary) -> None:
    config = ViTConfig(rotary=rotary)
    assert ViTConfig.from_json(config.to_json()) == config
    assert config.to_dict()["rotary"]["kind"] == rotary.kind
    assert hash(ViTConfig.from_json(config.to_json())) == hash(config)


def test_records_of_models_without_rotary_positions_read_as_before() -> None:
    """Those written before there were any do not have the fields."""
    record = ViTConfig().to_dict()
    for field in ("rotary", "qv_bias", "map_heads", "map_hidden_dim"):
        del record[field]
    assert ViTConfig.from_dict(record) == ViTConfig()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"kind": "cat"}, "choose one of dinov3, axial, mixed"),
        ({"kind": ["axial"]}, "choose one of dinov3, axial, mixed"),
        ({"theta": 3.0}, "choose one of dinov3, axial, mixed"),
        ("dinov3", "is not a kind of rotary positions"),
        ({"kind": "axial", "periods": None}, "axial has theta, order, offset, reference_grid, pairs"),
        ({"kind": "axial", "order": "xy"}, "choose one of hw, wh"),
        ({"kind": "axial", "theta": 0.0}, "it must be positive"),
        ({"kind": "axial", "theta": math.inf}, "must be finite"),
        ({"kind": "axial", "theta": "100"}, "wrong type"),
        ({"kind": "axial", "reference_grid": [16]}, "it must be 2 positive numbers"),
        ({"kind": "axial", "reference_grid": [16, 0]}, "it must be 2 positive numbers"),
        ({"kind": "dinov3", "periods": [1.0, 2.0]}, "it must be 16 positive numbers"),
        ({"kind": "dinov3", "periods": [math.nan] * 16}, "it must be 16 positive numbers"),
    ],
)
def test_what_is_no_rotary_position_is_refused(value: Any, said: str) -> None:
    with pytest.raises(VitportError, match=said):
        ViTConfig(rotary=value)


def test_heads_that_do_not_divide_into_pairs_for_two_axes_are_refused() -> None:
    with pytest.raises(VitportError, match="multiple of 4, but it is 6"):
        ViTConfig(embed_dim=12, num_heads=2, rotary=AxialRotary())


@pytest.mark.parametrize("fields", [{"rotary": AxialRotary()}, {"qkv_bias": False, "qv_bias": True}])
def test_a_parallel_block_has_neither(fields: dict[str, Any]) -> None:
    with pytest.raises(VitportError, match="parallel"):
        ViTConfig(block="parallel", **fields)


def test_biases_of_queries_and_values_take_the_place_of_all_biases() -> None:
    with pytest.raises(VitportError, match="set qkv_bias=False"):
        ViTConfig(qv_bias=True)


def test_dinov3_turns_by_centres_of_patches_from_minus_one_to_one() -> None:
    """Two rows, three columns, heads of width 8: d / 4 = 2 periods, 1 and 10."""
    cos, sin = (np.array(part) for part in turns(DinoV3Rotary(), (2, 3), 8, 1))
    assert cos.shape == sin.shape == (7, 4)
    assert (cos[0] == 1).all() and (sin[0] == 0).all()
    angles = [2 * math.pi * place / period for place in (0.5, -2 / 3) for period in (1.0, 10.0)]
    np.testing.assert_allclose(cos[4], np.cos(angles), rtol=0, atol=1e-15)  # second row, first column
    np.testing.assert_allclose(sin[4], np.sin(angles), rtol=0, atol=1e-15)


def test_axial_positions_scale_the_offset_too_and_may_take_columns_first() -> None:
    rotary = AxialRotary(theta=16.0, order="wh", offset=1.0, reference_grid=(4, 9))
    cos, sin = (np.array(part) for part in turns(rotary, (2, 3), 8, 0))
    angles = [place * frequency for place in (2 / 3 * 9, 2 / 2 * 4) for frequency in (1.0, 0.25)]
    np.testing.assert_allclose(cos[4], np.cos(angles), rtol=0, atol=1e-15)  # second row, second column
    np.testing.assert_allclose(sin[4], np.sin(angles), rtol=0, atol=1e-15)
