"""Config fields as keyword arguments, and another pooling over the same body."""

from __future__ import annotations

import pytest

from tests.small_configs import BASE, CONFIGS
from vit_spec import ViTConfig, VitportError, config_fields, with_pool
from vit_spec.vit.config import FIELDS
from vit_spec.vit.options import TIMM_NAMES


def test_own_names_and_timms_mean_the_same():
    options = {"img_size": 384, "in_chans": 1, "global_pool": "avg", "init_values": None, "depth": 2}
    expected = {"image_size": 384, "in_channels": 1, "pool": "avg", "layer_scale": None, "depth": 2}
    assert config_fields(ViTConfig, options) == expected
    assert config_fields(ViTConfig, expected) == expected


def test_the_table_leads_from_names_that_are_not_ours_to_names_that_are():
    assert not set(TIMM_NAMES) & set(FIELDS)
    assert set(TIMM_NAMES.values()) <= set(FIELDS)


@pytest.mark.parametrize(
    ("option", "hint"), [("in_chan", "in_chans"), ("num_class", "num_classes"), ("image_sz", "image_size")]
)
def test_unknown_names_are_refused_with_the_nearest(option: str, hint: str):
    with pytest.raises(VitportError, match=f"{option}=3 is not a field of ViTConfig: did you mean .*{hint}"):
        config_fields(ViTConfig, {option: 3})


def test_a_name_like_no_other_is_refused_with_all_of_them():
    with pytest.raises(VitportError, match="the fields are image_size, patch_size"):
        config_fields(ViTConfig, {"zzz": 3})


def test_a_field_is_given_once():
    with pytest.raises(VitportError, match="image_size is given twice, once as timm's img_size"):
        config_fields(ViTConfig, {"img_size": 32, "image_size": 16})


@pytest.mark.parametrize(
    ("before", "after"), [("token", "avg"), ("token", "token_avg"), ("map", "avg"), ("avg", "token")]
)
def test_a_pooling_that_needs_nothing_more_is_taken(before: str, after: str):
    config = BASE.replace(pool=before)
    assert with_pool(config, after) == BASE.replace(pool=after)  # type: ignore[arg-type]


def test_attention_pooling_needs_parameters():
    with pytest.raises(VitportError, match=r"'map' cannot take the place of 'token', for .* have attn_pool\.latent, "):
        with_pool(BASE, "map")


def test_a_layer_of_another_width_is_not_there():
    with pytest.raises(VitportError, match=r"does not have pre_logits\.fc\.weight"):
        with_pool(CONFIGS["pre-logits"], "token_avg")
