"""A config that contradicts itself is refused in one sentence, and one that does not survives JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_spec import ViTConfig, VitportError
from vit_spec.vit.rotary import AxialRotary, MixedRotary

CONTRADICTIONS = [
    ({"embed_dim": 100}, "embed_dim=100 does not divide among num_heads=12"),
    ({"image_size": 15}, r"image_size=15x15 holds no patch: its height 15 is below patch_size=16"),
    ({"image_size": (224, 15)}, r"image_size=224x15 holds no patch: its width 15 is below patch_size=16"),
    ({"image_size": (224, 224, 3)}, r"image_size=\(224, 224, 3\) is not a size"),
    ({"image_size": "224"}, "image_size=.* is not a size"),
    ({"image_size": None}, "image_size=None is not a size"),
    ({"image_size": 224.0}, "image_size=224.0 is not a size"),
    ({"image_size": True}, "image_size=True is not a size"),
    ({"mlp_ratio": float("inf")}, "mlp_ratio=inf must be finite"),
    ({"norm_eps": float("nan")}, "norm_eps=nan must be finite"),
    ({"qk_scale": float("nan")}, "qk_scale=nan must be finite"),
    ({"image_size": (224.0, 224.0)}, "image_size=.* is not a size"),
    ({"image_size": 0}, "image_size=0 is too small"),
    ({"image_size": (16, -16)}, "image_size=-16 is too small"),
    ({"patch_size": 0}, "patch_size=0 is too small"),
    ({"in_channels": 0}, "in_channels=0 is too small"),
    ({"embed_dim": 0}, "embed_dim=0 is too small"),
    ({"num_heads": 0}, "num_heads=0 is too small"),
    ({"num_heads": -12}, "num_heads=-12 is too small"),
    ({"depth": 0}, "depth=0 is too small"),
    ({"depth": "12"}, "depth='12' has the wrong type: it must be int"),
    ({"depth": 12.0}, "depth=12.0 has the wrong type: it must be int"),
    ({"depth": True}, "depth=True has the wrong type: it must be int"),
    ({"depth": None}, "depth=None has the wrong type: it must be int"),
    ({"qkv_bias": 1}, "qkv_bias=1 has the wrong type: it must be bool"),
    ({"qk_scale": "x"}, "qk_scale='x' has the wrong type: it must be float or None"),
    ({"layer_scale": True}, "layer_scale=True has the wrong type: it must be float or None"),
    ({"mlp_hidden_dim": 1.5}, "mlp_hidden_dim=1.5 has the wrong type: it must be int or None"),
    ({"mlp_hidden_dim": 0}, "hidden_dim=0 is too small"),
    ({"mlp_ratio": 0.0001}, "hidden_dim=0 is too small"),
    ({"num_classes": -1}, "num_classes=-1 is negative"),
    ({"register_tokens": -1}, "register_tokens=-1 is negative"),
    ({"representation_size": 0}, "representation_size=0 is too small"),
    ({"norm_eps": 0.0}, "norm_eps=0.0 is not positive"),
    ({"drop_rate": 1.0}, r"drop_rate must be in \[0, 1\); got 1.0"),
    ({"attn_drop_rate": -0.1}, r"attn_drop_rate must be in \[0, 1\); got -0.1"),
    ({"drop_path_rate": 2.0}, r"drop_path_rate must be in \[0, 1\); got 2.0"),
    ({"class_token": False}, "pool='token' reads the class token, but class_token=False"),
    ({"class_token": False, "pool": "token_avg"}, "pool='token_avg' reads the class token, but class_token=False"),
    ({"distilled": True, "pool": "avg"}, "distilled=True reads its two tokens, but pool='avg'"),
    ({"pool": "token_avg", "final_norm": "pooled"}, "pool='token_avg' joins two vectors, which final_norm='pooled'"),
    (
        {"block": "parallel", "mlp": "swiglu"},
        "block='parallel' has one plain MLP beside the attention, but mlp='swiglu'",
    ),
    ({"block": "parallel", "attn_norm": True}, "block='parallel' has one plain MLP .* attn_norm=True"),
    ({"block": "parallel", "mlp_norm": True}, "block='parallel' has one plain MLP .* mlp_norm=True"),
    ({"norm": "rmsnorm"}, "norm='rmsnorm' has no bias: set norm_bias=False"),
    ({"width": 3}, "ViTConfig has no field width: its fields are image_size"),
]

FIELDS = {field.name: get_type_hints(ViTConfig)[field.name] for field in dataclasses.fields(ViTConfig)}
CHOICES = {name: kinds for name, kind in FIELDS.items() if isinstance((kinds := get_args(kind) or (None,))[0], str)}


@pytest.mark.parametrize(("changes", "sentence"), CONTRADICTIONS)
def test_a_contradiction_is_one_sentence_that_names_it(changes, sentence) -> None:
    with pytest.raises(VitportError, match=sentence) as caught:
        ViTConfig().replace(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["nonsense", None, 1])
def test_an_unknown_choice_is_answered_with_the_known_ones(name, value) -> None:
    with pytest.raises(VitportError, match=f"{name}={value!r} is unknown: choose one of {', '.join(CHOICES[name])}"):
        ViTConfig().replace(**{name: value})


def test_the_fields_that_are_choices_are_those_known_here() -> None:
    assert sorted(CHOICES) == [
        "activation",
        "block",
        "final_norm",
        "mlp",
        "norm",
        "pool",
        "pos_embed",
        "pos_embed_resize",
    ]


RATES = st.floats(0, 1, exclude_max=True)
POSITIVE = st.floats(1e-9, 1e3)
VALUES: dict[str, st.SearchStrategy] = {
    "image_size": st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda size: (size[0] * 4, size[1] * 4)),
    "patch_size": st.sampled_from([1, 2, 4]),
    "in_channels": st.integers(1, 9),
    "num_classes": st.integers(0, 9),
    "embed_dim": st.integers(1, 20).map(lambda n: 12 * n),
    "depth": st.integers(1, 9),
    "branches": st.integers(1, 4),
    "num_heads": st.sampled_from([1, 2, 3, 4, 6, 12]),
    "mlp_ratio": st.floats(0.5, 8) | st.integers(1, 8),
    "mlp_hidden_dim": st.none() | st.integers(1, 99),
    "qk_scale": st.none() | POSITIVE,
    "norm_eps": POSITIVE,
    "layer_scale": st.none() | POSITIVE,
    "register_tokens": st.integers(0, 4),
    "map_heads": st.none() | st.sampled_from([1, 2, 3]),
    "map_hidden_dim": st.none() | st.integers(1, 9),
    "relative_hidden_dim": st.none() | st.integers(1, 9),
    "mlp_bias": st.none() | st.booleans(),
    "rotary": st.none() | st.just(MixedRotary().to_dict()) | st.just(AxialRotary(reference_grid=(2, 3)).to_dict()),
    "representation_size": st.none() | st.integers(1, 9),
    "drop_rate": RATES,
    "attn_drop_rate": RATES,
    "drop_path_rate": RATES,
}
VALUES |= {name: st.sampled_from(choices) for name, choices in CHOICES.items()}
VALUES |= {name: st.booleans() for name, kind in FIELDS.items() if kind is bool}


def _consistent(values: dict) -> dict:
    """The few contradictions between fields, undone."""
    if values["distilled"]:
        values |= {"pool": "token", "representation_size": None}
    values["class_token"] |= values["pool"] in ("token", "token_avg")
    if values["pool"] == "token_avg" and values["final_norm"] == "pooled":
        values["final_norm"] = "tokens"
    values["norm_bias"] &= values["norm"] != "rmsnorm"
    if values["block"] == "parallel":
        values |= {"mlp": "plain", "mlp_norm": False, "attn_norm": False, "qv_bias": False, "rotary": None}
    if values["distilled"] or values["register_tokens"] or values["block"] == "parallel":
        values["relative_bias"] = False
    if values["relative_bias"] or values["block"] == "parallel":
        values["relative_hidden_dim"] = None
    if values["block"] == "parallel" or values["mlp_bias"] is values["proj_bias"]:
        values["mlp_bias"] = None
    values["branches"] = values["branches"] if values["block"] == "branched" else 2
    positions = values["rotary"], values["relative_bias"], values["relative_hidden_dim"]
    values["differential"] &= not any(positions) and values["embed_dim"] // values["num_heads"] % 2 == 0
    values["qv_bias"] &= not values["qkv_bias"]
    values["scale_attention_only"] &= values["layer_scale"] is not None and values["block"] not in (
        "parallel",
        "branched",
    )
    if values["embed_dim"] // values["num_heads"] % 4:
        values["rotary"] = None
    if values["pool"] != "map":
        values |= {"map_heads": None, "map_hidden_dim": None}
    return values


@given(st.fixed_dictionaries(VALUES).map(_consistent))
def test_json_there_and_back_is_the_identity_for_every_field(values) -> None:
    config = ViTConfig(**values)
    assert ViTConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json()) == values | {"image_size": list(values["image_size"])}


def test_fields_left_out_of_json_take_their_defaults() -> None:
    assert ViTConfig.from_json('{"depth": 3, "image_size": [32, 48]}') == ViTConfig(depth=3, image_size=(32, 48))
    assert ViTConfig.from_json('{"image_size": 32}') == ViTConfig(image_size=(32, 32))


def test_json_that_is_no_object_or_has_a_strange_field_is_refused() -> None:
    for text, sentence in {
        "{": "not valid JSON for a ViTConfig",
        "[1]": "not list",
        '{"dept": 3}': "no field dept",
    }.items():
        with pytest.raises(VitportError, match=sentence):
            ViTConfig.from_json(text)


def test_a_config_cannot_be_changed_and_can_be_a_key() -> None:
    config = ViTConfig(image_size=[32, 48])  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.depth = 3  # type: ignore[misc]
    assert {config: 1}[ViTConfig(image_size=(32, 48))] == 1


def test_an_int_is_a_square() -> None:
    assert ViTConfig(image_size=32, patch_size=8).grid_size == (4, 4)  # type: ignore[arg-type]


def test_a_representation_of_a_distilled_model_is_ignored_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="representation_size=64 is ignored because distilled=True"):
        config = ViTConfig(distilled=True, representation_size=64)
    assert config.pre_logits_dim is None
    assert ViTConfig(representation_size=64).pre_logits_dim == 64


def test_stochastic_depth_rises_linearly_from_zero() -> None:
    assert ViTConfig(depth=5, drop_path_rate=0.4).drop_path_rates == pytest.approx((0, 0.1, 0.2, 0.3, 0.4))
    assert ViTConfig(depth=1, drop_path_rate=0.4).drop_path_rates == (0.0,)


def test_token_counts_follow_the_options() -> None:
    config = ViTConfig(image_size=(32, 48), patch_size=16, distilled=True, register_tokens=4)
    assert (config.grid_size, config.num_patches, config.num_prefix_tokens, config.num_tokens) == ((2, 3), 6, 6, 12)
    rows = {kind: config.replace(pos_embed=kind).num_positioned_prefix_tokens for kind in get_args(FIELDS["pos_embed"])}
    assert rows == {"none": 0, "patch": 0, "prefix": 2, "all": 6}


def test_widths_follow_the_options() -> None:
    config = ViTConfig(embed_dim=24, num_heads=3, mlp_ratio=2.3)
    assert (config.head_dim, config.hidden_dim, config.pooled_dim) == (8, 55, 24)
    assert config.attention_scale == pytest.approx(8**-0.5)
    changed = config.replace(mlp_hidden_dim=41, pool="token_avg", qk_scale=0.5)
    assert (changed.hidden_dim, changed.pooled_dim, changed.attention_scale) == (41, 48, 0.5)
