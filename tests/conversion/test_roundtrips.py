"""A → B → C → A over the formats that can hold a model. Oracle: the tensors that went in, bit for bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import conversion
from conversion import FORMATS
from conversion.formats import groups
from conversion.tensors.table import TensorTable
from tests.conversion.canaries import assert_same_tensors, canary_params
from vit_spec import ViTConfig, VitportError
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary

LUCID = {"pixel_norm": True, "patch_norm": True, "qkv_bias": False, "norm_eps": 1e-5}
DINOV3: dict = {"num_classes": 0, "layer_scale": 1e-5, "pos_embed": "none", "rotary": DinoV3Rotary(), "norm_eps": 1e-5}
WITHOUT_KEYS: dict = {"qkv_bias": False, "qv_bias": True}
EVA02: dict = WITHOUT_KEYS | {"rotary": AxialRotary(reference_grid=(2, 3)), "activation": "silu"}
PERCEPTION: dict = {
    "pre_norm": True,
    "patch_bias": False,
    "norm_eps": 1e-5,
    "rotary": AxialRotary(order="wh", offset=1.0, reference_grid=(3, 3)),
}
AIMV2: dict = {
    "class_token": False, "pos_embed": "patch", "patch_norm": True, "norm": "rmsnorm", "norm_bias": False,
    "mlp": "swiglu", "activation": "silu", "qkv_bias": False, "proj_bias": False, "num_classes": 0,
}  # fmt: skip
FLAVOURS: dict[str, dict] = {
    "vit": {},
    "vit-no-qkv-bias": {"qkv_bias": False},
    "vit-representation": {"representation_size": 10},
    "vit-representation-features": {"representation_size": 10, "num_classes": 0},
    "vit-features": {"num_classes": 0},
    "vit-tanh": {"activation": "gelu_tanh"},
    "deit": {"distilled": True},
    "deit-one-head": {"register_tokens": 1, "pos_embed": "all"},
    "dinov2": {"layer_scale": 1e-5, "num_classes": 0},
    "dinov2-classifier": {"layer_scale": 1e-5, "pool": "token_avg"},
    "dinov2-registers": {"layer_scale": 1e-5, "num_classes": 0, "register_tokens": 3},
    "dinov2-registers-classifier": {"layer_scale": 1e-5, "pool": "token_avg", "register_tokens": 2},
    "dinov2-swiglu": {"layer_scale": 1e-5, "num_classes": 0, "mlp": "swiglu_packed", "activation": "silu"},
    "clip": {"pre_norm": True, "patch_bias": False, "activation": "quick_gelu", "norm_eps": 1e-5},
    "clip-classifier": {"pre_norm": True, "patch_bias": False, "pool": "avg", "final_norm": "none"},
    "siglip": {"class_token": False, "pool": "map", "num_classes": 0, "activation": "gelu_tanh", "pos_embed": "patch"},
    "siglip-classifier": {"class_token": False, "pool": "avg", "activation": "gelu_tanh", "pos_embed": "patch"},
    "vit-pytorch": LUCID,
    "vit-pytorch-mean": LUCID | {"class_token": False, "pool": "avg", "pos_embed": "patch"},
    "vit-pytorch-plain": {"qkv_bias": False, "norm_eps": 1e-5, "final_norm": "pooled"},
    "vit-pytorch-simple-plain": {
        "qkv_bias": False,
        "norm_eps": 1e-5,
        "final_norm": "pooled",
        "class_token": False,
        "pool": "avg",
        "pos_embed": "patch",
    },
    "dinov3": DINOV3 | WITHOUT_KEYS | {"register_tokens": 3},
    "dinov3-swiglu": DINOV3 | {"mlp": "swiglu", "activation": "silu", "qkv_bias": False},
    "dinov3-key-bias": DINOV3,
    "eva02-fused": EVA02 | {"mlp": "swiglu_packed", "pool": "avg", "final_norm": "pooled"},
    "eva02-split": EVA02 | {"mlp": "swiglu", "mlp_norm": True, "attn_norm": True},
    "beit": WITHOUT_KEYS
    | {"relative_bias": True, "pos_embed": "none", "pool": "avg", "final_norm": "pooled", "layer_scale": 0.1},
    "beit-token": WITHOUT_KEYS | {"relative_bias": True},
    "relpos": {"relative_hidden_dim": 7, "pos_embed": "none", "pool": "avg", "final_norm": "pooled"},
    "perception": PERCEPTION | {"layer_scale": 0.1, "final_norm": "none"},
    "rope-mixed": {"rotary": MixedRotary(), "pos_embed": "patch", "layer_scale": 1e-5},
    "sapiens2": {
        "num_classes": 0,
        "norm": "rmsnorm",
        "norm_bias": False,
        "qk_norm": True,
        "layer_scale": 1e-5,
        "scale_attention_only": True,
        "register_tokens": 2,
        "pos_embed": "none",
        "rotary": DinoV3Rotary(),
        "mlp": "swiglu_packed",
        "activation": "silu",
    },
    "internvl": {"layer_scale": 0.1, "pool": "avg", "final_norm": "none", "num_classes": 0},
    "aimv2": AIMV2 | {"pool": "avg"},
    "aimv2-head": AIMV2 | {"pool": "map", "map_hidden_dim": 1, "mlp_hidden_dim": 5},
    "encoder": {"norm_bias": False, "qkv_bias": False, "proj_bias": False, "activation": "relu"},
}

ALONE = {"eva02-fused", "eva02-split", "rope-mixed", "relpos"}
"""Those that one format alone holds, beside ``flax``."""


@st.composite
def models(draw: st.DrawFn) -> tuple[ViTConfig, np.dtype]:
    """A config of one of the families, its sizes as unlike each other as they may be, and a dtype."""
    flavour = FLAVOURS[draw(st.sampled_from(sorted(FLAVOURS)))]
    patch, heads, width = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 7))
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    square = draw(st.booleans())
    sizes = {
        "patch_size": patch,
        "image_size": (rows * patch, (rows if square else columns) * patch),
        "num_heads": heads,
        "embed_dim": heads * width,
        "mlp_hidden_dim": draw(st.sampled_from([1, 2, 3])) * heads * width,
        "depth": draw(st.sampled_from([1, 2, 11])),
        "num_classes": draw(st.integers(1, 9)),
    }
    if "rotary" in flavour:
        sizes["embed_dim"] *= 4
        sizes["mlp_hidden_dim"] *= 4
    if flavour.get("mlp") == "swiglu_packed":
        hidden = heads * width * draw(st.integers(2, 4))  # two thirds of 1 would not be a width
        sizes["mlp_hidden_dim"] = (int(hidden * 2 / 3) + 7) // 8 * 8
    if draw(st.booleans()) and "layer_scale" not in flavour:
        sizes["mlp_hidden_dim"] += 1  # no multiple of the width, except for DINOv2, whose config.json has a ratio
    dtype = np.dtype(draw(st.sampled_from(["float32", "float16", "float64", "bfloat16"])))
    return ViTConfig().replace(**sizes | flavour), dtype


def holders(config: ViTConfig) -> list[str]:
    """Names of the formats that can hold a model; orbax, being slow, has its own test."""
    return [
        name
        for name, entry in FORMATS.items()
        if entry.can_write and entry.family == config.family and name != "flax" and not entry.cannot_hold(config)
    ]


def params_for(config: ViTConfig, dtype: np.dtype) -> dict[str, np.ndarray]:
    return fitted(config, canary_params(config, dtype))


def fitted(config: ViTConfig, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters as all formats that hold the config can hold them."""
    if config.pre_norm and "head.bias" in params:
        params["head.bias"] = np.zeros_like(params["head.bias"])  # CLIP's projection has none
    for entry in FORMATS.values():
        if entry.computed is not None and not entry.cannot_hold(config):  # SimpleViT, whose attention ends without one
            computed = entry.computed(TensorTable.of(params), config.image_size)
            biases = [name for name in params if name.endswith("attn.proj.bias")]
            params |= {name: tensor.read() for name, tensor in computed.items()}
            params |= {name: np.zeros_like(params[name]) for name in biases}
    return params


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=models(), data=st.data())
def test_any_way_round_three_formats_is_the_identity(model: tuple[ViTConfig, np.dtype], data: st.DataObject) -> None:
    config, dtype = model
    params = params_for(config, dtype)
    names = holders(config)
    way = data.draw(st.lists(st.sampled_from(names), min_size=3, max_size=3))
    checkpoint = conversion.Checkpoint.of(config, params)
    with tempfile.TemporaryDirectory() as folder:
        for step, name in enumerate([*way, way[0]]):
            path = Path(folder) / f"{step}"
            conversion.save(checkpoint, path, format=name, activation="keep")
            checkpoint = conversion.load(path, model=config)
            assert checkpoint.provenance.format == name
            assert_same_tensors(checkpoint.params, params)
        unchanged = {"pos_embed_resize", "pos_embed", "layer_scale", "mlp_ratio", "mlp_hidden_dim"}
        same = {field: value for field, value in checkpoint.config.to_dict().items() if field not in unchanged}
        assert same == {field: value for field, value in config.to_dict().items() if field not in unchanged}
        assert checkpoint.config.hidden_dim == config.hidden_dim


@pytest.mark.parametrize("flavour", list(FLAVOURS))
def test_every_format_that_claims_to_hold_a_model_does(flavour: str, tmp_path: Path) -> None:
    config = ViTConfig().replace(
        **{
            "image_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_hidden_dim": 48,
            "num_classes": 5,
        }
        | FLAVOURS[flavour]
    )  # fmt: skip
    params = params_for(config, np.dtype(np.float32))
    names = holders(config)
    assert len(names) > (flavour not in ALONE)
    for name in names:
        conversion.save(conversion.Checkpoint.of(config, params), tmp_path / name, format=name)
        assert_same_tensors(conversion.load(tmp_path / name, model=config).params, params)


def test_every_writable_format_is_tried_by_some_flavour() -> None:
    base = {"image_size": 12, "patch_size": 4, "embed_dim": 24, "num_heads": 3, "mlp_hidden_dim": 48, "num_classes": 5}
    tried = {name for flavour in FLAVOURS.values() for name in holders(ViTConfig().replace(**base | flavour))}
    assert tried == {name for name, entry in FORMATS.items() if entry.can_write and entry.family == "vit"} - {"flax"}


def test_a_family_without_a_fitting_member_says_of_each_what_it_cannot_hold(tmp_path: Path) -> None:
    config = ViTConfig(depth=1, qk_norm=True)
    checkpoint = conversion.Checkpoint.of(config, canary_params(config))
    with pytest.raises(VitportError, match="the nearest of huggingface, cannot hold qk_norm=True") as caught:
        conversion.save(checkpoint, tmp_path / "hf", format="huggingface")
    first, *others = str(caught.value).splitlines()
    assert first.startswith("huggingface-vit, the nearest")
    others_of_the_family = {name for name in groups()["huggingface"] if FORMATS[name].family == "vit"} - {
        "huggingface-vit"
    }
    assert sorted(line.split()[0] for line in others) == sorted(others_of_the_family)
    assert all("cannot hold" in line for line in others)
