"""A config that contradicts itself is refused in one sentence, and one that does not survives JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_spec import ViTConfig, VitportError

CONTRADICTIONS = [
    ({"embed_dim": 100}, "embed_dim=100 does not divide among num_heads=12"),
    ({"image_size": 225}, r"height 225 is no multiple of patch_size=16"),
    ({"image_size": (224, 230)}, r"width 230 is no multiple of patch_size=16"),
    ({"image_size": (224, 224, 3)}, "image_size=.* is no size"),
    ({"image_size": "224"}, "image_size=.* is no size"),
    ({"image_size": 0}, "image_size=0 is too small"),
    ({"patch_size": 0}, "patch_size=0 is too small"),
    ({"depth": 0}, "depth=0 is too small"),
    ({"depth": "12"}, "depth='12' has the wrong type: it must be int"),
    ({"depth": True}, "depth=True has the wrong type"),
    ({"qkv_bias": 1}, "qkv_bias=1 has the wrong type: it must be bool"),
    ({"qk_scale": "x"}, "qk_scale='x' has the wrong type: it must be float or None"),
    ({"mlp_ratio": 0.0001}, "hidden_dim=0 is too small"),
    ({"num_classes": -1}, "num_classes=-1 is negative"),
    ({"register_tokens": -1}, "register_tokens=-1 is negative"),
    ({"representation_size": 0}, "representation_size=0 is too small"),
    ({"norm_eps": 0.0}, "norm_eps=0.0 is not positive"),
    ({"drop_rate": 1.0}, "drop_rate=1.0 is no rate"),
    ({"attn_drop_rate": -0.1}, "attn_drop_rate=-0.1 is no rate"),
    ({"drop_path_rate": 2.0}, "drop_path_rate=2.0 is no rate"),
    ({"activation": "tanh"}, "activation='tanh' is unknown: choose one of gelu, gelu_tanh"),
    ({"class_token": False}, "pool='token' reads the class token"),
    ({"distilled": True, "pool": "avg"}, "distilled=True reads its two tokens"),
    ({"pool": "token_avg", "final_norm": "pooled"}, "pool='token_avg' joins two vectors"),
    ({"norm": "rmsnorm"}, "norm='rmsnorm' has no bias"),
    ({"width": 3}, "ViTConfig has no field width: its fields are image_size"),
]


@pytest.mark.parametrize(("changes", "sentence"), CONTRADICTIONS)
def test_a_contradiction_is_one_sentence_that_names_it(changes, sentence) -> None:
    with pytest.raises(VitportError, match=sentence) as caught:
        ViTConfig().replace(**changes)
    assert "\n" not in str(caught.value)


CONFIGS = st.fixed_dictionaries(
    {
        "image_size": st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda size: (size[0] * 4, size[1] * 4)),
        "patch_size": st.sampled_from([1, 2, 4]),
        "embed_dim": st.integers(1, 20).map(lambda n: 12 * n),
        "mlp_ratio": st.floats(0.5, 8, allow_nan=False),
        "mlp_hidden_dim": st.none() | st.integers(1, 99),
        "layer_scale": st.none() | st.floats(1e-6, 1),
        "qk_scale": st.none() | st.floats(1e-3, 9),
        "register_tokens": st.integers(0, 4),
        "drop_path_rate": st.floats(0, 0.9),
        "pool": st.sampled_from(["token", "avg", "map"]),
        "pos_embed": st.sampled_from(["none", "patch", "prefix", "all"]),
    }
)


@given(CONFIGS)
def test_json_there_and_back_is_the_identity(fields) -> None:
    config = ViTConfig().replace(**fields)
    assert ViTConfig.from_json(config.to_json()) == config
    assert set(json.loads(config.to_json())) == set(ViTConfig().to_dict())


def test_an_int_is_a_square() -> None:
    assert ViTConfig(image_size=32, patch_size=8).grid_size == (4, 4)  # type: ignore[arg-type]


def test_json_that_is_no_object_or_has_a_strange_field_is_refused() -> None:
    for text, sentence in {"[1]": "not list", '{"dept": 3}': "no field dept"}.items():
        with pytest.raises(VitportError, match=sentence):
            ViTConfig.from_json(text)


def test_a_representation_of_a_distilled_model_is_ignored_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="representation_size=64 is ignored because distilled=True"):
        config = ViTConfig(distilled=True, representation_size=64)
    assert config.pre_logits_dim is None


def test_stochastic_depth_rises_linearly_from_zero() -> None:
    assert ViTConfig(depth=5, drop_path_rate=0.4).drop_path_rates == pytest.approx((0, 0.1, 0.2, 0.3, 0.4))
    assert ViTConfig(depth=1, drop_path_rate=0.4).drop_path_rates == (0.0,)


def test_token_counts_follow_the_options() -> None:
    config = ViTConfig(image_size=(32, 48), patch_size=16, distilled=True, register_tokens=4)
    assert (config.num_patches, config.num_prefix_tokens, config.num_tokens) == (6, 6, 12)
    rows = {kind: config.replace(pos_embed=kind).num_positioned_prefix_tokens for kind in ("patch", "prefix", "all")}
    assert rows == {"patch": 0, "prefix": 2, "all": 6}
