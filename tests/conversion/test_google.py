"""Google's formats, read and written. Oracle: a numpy forward pass written from the papers, on the files' own names."""

from __future__ import annotations

import re
from pathlib import Path

import flax.linen
import flax.serialization
import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import conversion
from conversion.tensors.flax_tree import flatten, nest
from conversion.tensors.table import TensorTable
from tests.conversion import google_reference
from tests.conversion.canaries import assert_same_tensors, canary_checkpoint, canary_params
from tests.conversion.google_reference import LINEN, RELEASED, Sizes, random_weights
from tests.random_weights import random_images, random_params
from tests.small_configs import CHANGES
from tests.vit_jax.models import jax_model, nhwc, quick_jit
from tests.vit_torch.models import torch_model
from vit_spec import ViTConfig, VitportError

INPUT = "Transformer/posembed_input/pos_embedding"
RELEASED_FILE = {"counters": RELEASED, "positions": INPUT, "class_token": True, "class_row": True}
BIG_VISION = {"counters": LINEN, "positions": "pos_embedding", "class_token": False}
LAYOUTS = {
    "released": ("google", RELEASED_FILE),
    "released without class token": ("google", RELEASED_FILE | {"class_token": False, "class_row": False}),
    "Linen": ("google-linen", RELEASED_FILE | {"counters": LINEN}),
    "average": ("big-vision", BIG_VISION),
    "class token without position": ("big-vision", BIG_VISION | {"class_token": True}),
    "class token with position": ("big-vision", BIG_VISION | {"class_token": True, "class_row": True}),
    "attention pool": ("big-vision", BIG_VISION | {"attention_pool": True}),
    "stacked": ("big-vision-scan", BIG_VISION | {"stacked": True}),
    "stacked, attention pool": ("big-vision-scan", BIG_VISION | {"attention_pool": True, "stacked": True}),
}
GRID = ViTConfig(image_size=(12, 20), patch_size=4, num_heads=1, activation="relu", norm_eps=0.1, qkv_bias=False)
"""Names the shape of the grid, which no file of Google's says; everything else in it is wrong."""
SQUARE = Sizes(grid=(4, 4), depth=2)
CONFIG = ViTConfig(
    image_size=(12, 20), patch_size=4, num_classes=7, embed_dim=24, depth=11, num_heads=3, mlp_hidden_dim=41,
    representation_size=10, activation="gelu_tanh", pos_embed_resize="scipy-zoom",
)  # fmt: skip
TOLERANCE = 1e-12
"""Of the logits' scale: 11 blocks of some 10 roundings of 1.1e-16 give 1e-14. Measured: 5e-15."""


def _save(path: Path, weights: dict[str, np.ndarray]) -> None:
    """The file as its authors write it."""
    if path.suffix == ".msgpack":
        path.write_bytes(flax.serialization.msgpack_serialize(nest(weights)))
    else:
        np.savez(path, **weights)


def _read(path: Path) -> dict[str, np.ndarray]:
    """A file's tensors without our help."""
    if path.read_bytes()[:2] != b"PK":
        return flatten(flax.serialization.msgpack_restore(path.read_bytes()))
    with np.load(path) as file:
        return {name: array.view(ml_dtypes.bfloat16) if array.dtype == "V2" else array for name, array in file.items()}


def _suffix(format_name: str) -> str:
    return ".msgpack" if format_name == "google-linen" else ".npz"


def _images(config: ViTConfig) -> np.ndarray:
    """(B, C, H, W)."""
    return random_images(config, 2, seed=3)


def _assert_equal_to_reference(actual: np.ndarray, weights: dict[str, np.ndarray], config: ViTConfig) -> None:
    expected = google_reference.logits(weights, _images(config).transpose(0, 2, 3, 1))
    scale = np.abs(expected).max()
    assert 0.3 < scale < 10
    assert expected.shape == actual.shape == (2, 7)
    assert np.abs(actual - expected).max() <= TOLERANCE * scale


@pytest.mark.parametrize("name", LAYOUTS)
def test_both_models_answer_as_the_papers_say(tmp_path, name) -> None:
    format_name, layout = LAYOUTS[name]
    weights = random_weights(Sizes(), **layout)
    _save(tmp_path / f"w{_suffix(format_name)}", weights)
    checkpoint = conversion.load(tmp_path / f"w{_suffix(format_name)}", model=GRID)
    assert checkpoint.provenance.format == format_name
    config, images = checkpoint.config, _images(checkpoint.config)
    with torch.no_grad():
        answer = torch_model(config, checkpoint.params).eval()(torch.tensor(images)).numpy()
    _assert_equal_to_reference(answer, weights, config)
    with jax.enable_x64(True):
        model = jax_model(config, checkpoint.params)
        model.eval()
        graphdef, state = nnx.split(model)
        answer = np.asarray(quick_jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, nhwc(images)))
    _assert_equal_to_reference(answer, weights, config)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_a_file_read_and_written_again_has_the_same_tensors_bit_for_bit(tmp_path, name, dtype) -> None:
    format_name, layout = LAYOUTS[name]
    weights = {key: array.astype(dtype) for key, array in random_weights(Sizes(), **layout).items()}
    source, again = tmp_path / f"w{_suffix(format_name)}", tmp_path / "again"
    _save(source, weights)
    checkpoint = conversion.load(source, model=GRID)
    if name == "class token with position":
        with pytest.raises(VitportError, match=r"pos_embed=\'prefix\' \(google and google-linen hold it\)"):
            conversion.save(checkpoint, again, format=format_name)
        return
    conversion.save(checkpoint, again, format=format_name)
    assert_same_tensors(_read(again), weights)


WRITTEN = {
    "google": CONFIG,
    "google-linen": CONFIG.replace(class_token=False, pool="avg"),
    "big-vision": CONFIG.replace(class_token=False, pool="map", pos_embed="patch"),
    "big-vision-scan": CONFIG.replace(pos_embed="patch", representation_size=None),
}


@pytest.mark.parametrize("format_name", WRITTEN)
def test_what_we_write_answers_as_the_papers_say(tmp_path, format_name) -> None:
    config = WRITTEN[format_name]
    params = random_params(config, seed=5)
    conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "w", format=format_name)
    with torch.no_grad():
        answer = torch_model(config, params).eval()(torch.tensor(_images(config))).numpy()
    _assert_equal_to_reference(answer, _read(tmp_path / "w"), config)


def test_the_reference_computes_what_flax_computes() -> None:
    """The oracle's own oracle: Linen's layers, of which Google's models are made."""
    weights = random_weights(Sizes(depth=1), **BIG_VISION)
    (block,) = google_reference.blocks(weights)
    x = np.random.default_rng(0).standard_normal((5, 24))
    tree = nest(block)
    with jax.enable_x64(True):
        attended = flax.linen.MultiHeadDotProductAttention(num_heads=3).apply({"params": tree["attention"]}, x, x)
        normed = flax.linen.LayerNorm(use_fast_variance=False).apply({"params": tree["norm1"]}, x)
        hidden = flax.linen.gelu(flax.linen.Dense(41).apply({"params": tree["mlp"]["Dense_0"]}, x))
        mixed = flax.linen.Dense(24).apply({"params": tree["mlp"]["Dense_1"]}, hidden)
        image = np.random.default_rng(1).standard_normal((12, 20, 3))
        embed = flax.linen.Conv(24, (4, 4), strides=(4, 4), padding="VALID")
        patches = embed.apply({"params": nest(weights)["embedding"]}, image[None])
    for actual, expected in {
        "attention": (google_reference.attention(block, "attention", x, x), attended),
        "norm": (google_reference.layer_norm(block, "norm1", x), normed),
        "mlp": (google_reference.mlp(block, "mlp", x), mixed),
        "patches": (google_reference.tokens(weights, image) - weights["pos_embedding"][0], patches.reshape(15, 24)),
    }.values():
        np.testing.assert_allclose(actual, np.asarray(expected), rtol=0, atol=1e-13)


def test_conventions_are_told_by_the_format_and_overrule_the_named_model(tmp_path) -> None:
    np.savez(tmp_path / "w.npz", **random_weights(Sizes(), **RELEASED_FILE))
    checkpoint = conversion.load(tmp_path / "w.npz", model=GRID)
    config = checkpoint.config
    assert (config.activation, config.norm_eps, config.num_heads, config.pool) == ("gelu_tanh", 1e-6, 3, "token")
    assert (config.pos_embed, config.pos_embed_resize, config.representation_size) == ("prefix", "scipy-zoom", 10)
    assert checkpoint.provenance.origins["num_heads"] == "the tensors' shapes"
    assert checkpoint.provenance.origins["activation"] == "the convention of google"
    preprocessing = checkpoint.preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (preprocessing.resize, preprocessing.interpolation) == ("squash", "bilinear")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_square_grid_needs_no_named_model(tmp_path, name) -> None:
    format_name, layout = LAYOUTS[name]
    _save(tmp_path / f"w{_suffix(format_name)}", random_weights(SQUARE, **layout))
    config = conversion.load(tmp_path / f"w{_suffix(format_name)}").config
    assert config.image_size == (16, 16)
    assert config.class_token == layout["class_token"]
    has_row = layout.get("class_row", False) or format_name.startswith("google")
    assert config.pos_embed == ("prefix" if has_row else "patch")


PREFIXES = ["opt/target/", "params/", "params/img/", "img/", "0/", "0/params/"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["released", "Linen", "attention pool", "stacked"])
def test_prefixes_are_peeled_off_and_what_lies_beside_is_told(tmp_path, prefix, name) -> None:
    weights = random_weights(SQUARE, **LAYOUTS[name][1])
    beside = {"txt/head/kernel": np.ones((2, 2)), "t": np.array(1.0), "opt/state/step": np.array(7)}
    moments = {f"1/0/trace/{key}": array for key, array in weights.items()}
    moments |= {f"opt_state/0/mu/{key}": array for key, array in weights.items()}
    moments |= {f"opt/state/param_states/{key}/grad_ema": array for key, array in weights.items()}
    moments |= {f"opt/0/1/nu/params/{key}": array for key, array in weights.items()}
    np.savez(tmp_path / "w.npz", **{prefix + key: array for key, array in weights.items()}, **beside, **moments)
    np.savez(tmp_path / "bare.npz", **weights)
    checkpoint = conversion.load(tmp_path / "w.npz")
    assert_same_tensors(checkpoint.params, conversion.load(tmp_path / "bare.npz").params)
    notes = "; ".join(checkpoint.provenance.notes)
    assert f"took the prefix {prefix} off" in notes
    assert all(root in notes for root in ("txt/head", "opt/state", "opt_state/0"))


def test_a_checkpoint_of_the_training_script_is_read(tmp_path) -> None:
    """vision_transformer saves (parameters, optimizer state, step) with flax.training.checkpoints."""
    weights = {key: array.astype(np.float32) for key, array in random_weights(SQUARE, **LAYOUTS["Linen"][1]).items()}
    trace = {key: array + 1 for key, array in weights.items()}
    state = ({"trace": nest(trace)}, {"count": np.array(3)})
    (tmp_path / "checkpoint_3").write_bytes(flax.serialization.to_bytes((nest(weights), state, 3)))
    (tmp_path / "bare").write_bytes(flax.serialization.to_bytes(nest(weights)))
    checkpoint = conversion.load(tmp_path / "checkpoint_3")
    assert_same_tensors(checkpoint.params, conversion.load(tmp_path / "bare").params)
    assert any("because they are not arrays: 2" in note for note in checkpoint.provenance.notes)
    chosen = conversion.load(tmp_path / "checkpoint_3", weights_key="0")
    assert_same_tensors(chosen.params, checkpoint.params)


def test_old_names_of_big_vision_are_read(tmp_path) -> None:
    weights = random_weights(SQUARE, **LAYOUTS["attention pool"][1])
    old = {name.removeprefix("MAPHead_0/"): array for name, array in weights.items()}
    old["Transformer/pos_embedding"] = old.pop("pos_embedding")
    assert "probe" in old and "LayerNorm_0/scale" in old
    np.savez(tmp_path / "old.npz", **old)
    np.savez(tmp_path / "new.npz", **weights)
    old_checkpoint, checkpoint = conversion.load(tmp_path / "old.npz"), conversion.load(tmp_path / "new.npz")
    assert old_checkpoint.config == checkpoint.config
    assert_same_tensors(old_checkpoint.params, checkpoint.params)


def test_a_head_of_zeros_is_told(tmp_path) -> None:
    weights = random_weights(SQUARE, **RELEASED_FILE)
    np.savez(tmp_path / "w.npz", **weights)
    assert not any("zero" in note for note in conversion.load(tmp_path / "w.npz").provenance.notes)
    weights["head/kernel"][:] = 0
    np.savez(tmp_path / "w.npz", **weights)
    notes = conversion.load(tmp_path / "w.npz").provenance.notes
    assert "head.weight is zero throughout: the file holds no trained head" in notes


ATTENTION = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
FAULTS = {
    "a block with other heads": (
        f"{ATTENTION}/(query|key|value)/(kernel|bias)",
        lambda array: array.reshape(*array.shape[:-2], 6, 4),
        r"number of heads differs \(3 in .*, 6 in Transformer/encoderblock_1",
    ),
    "an output with other heads": (f"{ATTENTION}/out/kernel", lambda array: array.reshape(6, 4, 24), "3 in .*, 6 in"),
    "a key with other heads": (f"{ATTENTION}/key/kernel", lambda a: a.reshape(24, 6, 4), "their shapes differ"),
    "a bias with its axes exchanged": (f"{ATTENTION}/value/bias", np.transpose, "their shapes differ"),
    "biases with their axes exchanged": (f"{ATTENTION}/.*/bias", np.transpose, r"3 in .*, 8 in .*/query/bias"),
    "kernels without heads": (
        ".*/(query|key|value)/kernel",
        lambda array: array.reshape(24, 24),
        "3 in .*/query/bias, 24 in .*/query/kernel",
    ),
    "kernels laid flat": (
        f"{ATTENTION}/(query|key|value)/kernel",
        np.ravel,
        "expected axes",
    ),
    "an output without heads": (f"{ATTENTION}/out/kernel", lambda array: array.reshape(24, 24), "expected axes"),
    "a missing tensor": (
        "Transformer/encoderblock_1/MlpBlock_3/Dense_1/bias",
        None,
        r"missing blocks\.1\.mlp\.fc2\.bias \(in the file: Transformer/encoderblock_1/MlpBlock_3/Dense_1/bias\)",
    ),
    "a transposed matrix": (
        "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel",
        np.transpose,
        r"blocks\.0\.mlp\.fc1\.weight .* has shape \(24, 41\) instead of \(41, 24\)",
    ),
    "a kernel of patches laid flat": (
        "embedding/kernel",
        lambda array: array.reshape(-1, 24),
        r"embedding/kernel \(48, 24\) cannot become patch_embed\.proj\.weight",
    ),
    "a scalar for a norm": ("Transformer/encoder_norm/scale", lambda array: array[0], r"has shape \(\) instead of"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_misshapen_file_is_one_sentence(tmp_path, fault) -> None:
    pattern, change, message = FAULTS[fault]
    weights = random_weights(SQUARE, **RELEASED_FILE)
    for name in [name for name in weights if re.fullmatch(pattern, name)]:
        changed = weights.pop(name)
        if change is not None:
            weights[name] = change(changed)
    np.savez(tmp_path / "w.npz", **weights)
    with pytest.raises(VitportError, match=message):
        conversion.load(tmp_path / "w.npz")


def test_models_that_are_no_plain_vit_are_refused_by_name(tmp_path) -> None:
    weights = random_weights(SQUARE, **RELEASED_FILE)
    np.savez(tmp_path / "hybrid.npz", **weights, **{"conv_root/kernel": np.ones((7, 7, 3, 64))})
    with pytest.raises(VitportError, match="a hybrid, whose patches come out of a ResNet"):
        conversion.load(tmp_path / "hybrid.npz")
    weights = random_weights(SQUARE, **BIG_VISION)
    del weights["pos_embedding"]
    np.savez(tmp_path / "sincos.npz", **weights)
    with pytest.raises(VitportError, match="sincos2d positions compute them in code"):
        conversion.load(tmp_path / "sincos.npz")


def test_stacks_that_are_no_stacks_are_refused(tmp_path) -> None:
    weights = random_weights(SQUARE, **BIG_VISION, stacked=True)
    name = "Transformer/encoderblock/LayerNorm_0/scale"
    block = r"missing blocks\.1\.norm1\.weight \(in the file: Transformer/encoderblock/LayerNorm_0/scale\[1\]\)"
    depth = "first axis must be the depth"
    for shape, message in {(): depth, (5000, 0): depth, (1, 24): block}.items():
        np.savez(tmp_path / "w.npz", **(weights | {name: np.empty(shape)}))
        with pytest.raises(VitportError, match=message):
            conversion.load(tmp_path / "w.npz")


def test_blocks_of_different_dtypes_cannot_be_stacked(tmp_path) -> None:
    config = WRITTEN["big-vision-scan"]
    params = canary_params(config)
    params["blocks.3.norm1.bias"] = params["blocks.3.norm1.bias"].astype(np.float16)
    with pytest.raises(VitportError, match="LayerNorm_0/bias cannot be stacked"):
        conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "w", format="big-vision-scan")


HELD = {"plain", "square", "patch-2", "one-channel", "features", "wide", "deep", "one-head", "mlp-ratio", "gelu-tanh",
        "no-class-token", "pre-logits", "pre-logits-features", "margin"}  # fmt: skip
RESTATED = {"no-qkv-bias", "qv-bias", "no-proj-bias", "mlp-bias-alone", "no-norm-bias", "no-patch-bias"}
"""Held with zeros for what the model does not have; tests/conversion/changes/vit has the numbers."""
LOST = {
    "swiglu": "mlp='swiglu'", "qk-scale": "qk_scale=0.6", "qk-norm": "qk_norm=True", "registers": "register_tokens=2",
    "distilled": "distilled=True", "layer-scale": "layer_scale=1e-05",
    "norm-pooled": "final_norm='pooled'", "norm-eps": "norm_eps=0.1, because its users run 1e-06",
    "map": "big-vision holds it", "position-none": "pos_embed='none'", "average": "pool='avg' with a class token",
    "quick-gelu": "tanh form of GELU",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_is_written_whole_or_refused_by_what_would_be_lost(tmp_path, name) -> None:
    config = CONFIG.replace(depth=2, representation_size=None, **CHANGES["square"]).replace(**CHANGES[name])
    for format_name in ("google", "google-linen", "big-vision", "big-vision-scan"):
        top = format_name.startswith("big") and config.pos_embed == "prefix"
        model = config.replace(pos_embed="patch") if top else config
        checkpoint = conversion.Checkpoint.of(model, canary_params(model))
        if name in RESTATED:
            conversion.save(checkpoint, tmp_path / format_name, format=format_name)
            assert conversion.load(tmp_path / format_name, model=model).config.qkv_bias
            continue
        held = name in HELD or (name == "map" and top)
        try:
            conversion.save(checkpoint, tmp_path / format_name, format=format_name)
        except VitportError as error:
            assert not held
            assert LOST.get(name, "cannot hold") in str(error)
            assert not (tmp_path / format_name).exists()
        else:
            assert held
            assert_same_tensors(conversion.load(tmp_path / format_name, model=model).params, checkpoint.params)


@pytest.mark.parametrize("format_name", WRITTEN)
def test_the_activation_never_changes_in_silence(tmp_path, format_name) -> None:
    checkpoint = canary_checkpoint(WRITTEN[format_name].replace(activation="gelu"))
    with pytest.raises(VitportError, match="activation='gelu', because its users run the tanh form of GELU"):
        conversion.save(checkpoint, tmp_path / "w", format=format_name)


def test_a_position_table_with_a_row_for_the_class_token_is_refused_with_advice(tmp_path) -> None:
    checkpoint = canary_checkpoint(CONFIG.replace(pos_embed="prefix"))
    with pytest.raises(VitportError, match="google and google-linen hold it"):
        conversion.save(checkpoint, tmp_path / "w", format="big-vision")


OPTIONS = st.fixed_dictionaries(
    {
        "image_size": st.sampled_from([(4, 8), (6, 2), (4, 4), (2, 2)]),
        "num_heads": st.sampled_from([1, 2, 3, 4, 6, 12]),
        "depth": st.integers(1, 12),
        "mlp_hidden_dim": st.integers(1, 13),
        "num_classes": st.integers(0, 3),
        "in_channels": st.integers(1, 4),
        "representation_size": st.one_of(st.none(), st.integers(1, 5)),
    }
)


@settings(max_examples=60, deadline=None)
@given(OPTIONS, st.sampled_from(list(WRITTEN)), st.sampled_from(["token", "avg", "map"]))
def test_there_and_back_is_the_identity_for_any_config(options, format_name, pool) -> None:
    pos_embed = "prefix" if format_name.startswith("google") else "patch"
    pool = "avg" if pool == "map" and pos_embed == "prefix" else pool
    config = ViTConfig(patch_size=2, embed_dim=12, activation="gelu_tanh").replace(
        **options, pool=pool, class_token=pool == "token", pos_embed=pos_embed
    )
    found = conversion.FORMATS[format_name]
    assert found.cannot_hold(config) == []
    params = canary_params(config)
    foreign = found.names.write(TensorTable.of(params), config)
    canonical, unknown = found.names.read(foreign)
    assert unknown == []
    assert_same_tensors(canonical, params)
    assert found.shape_facts is not None
    assert found.shape_facts(foreign.shapes)["num_heads"] == config.num_heads
    assert_same_tensors(found.names.write(canonical, config), foreign)
    assert {name: array.shape for name, array in foreign.items()} == foreign.shapes
