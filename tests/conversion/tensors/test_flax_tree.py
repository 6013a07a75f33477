"""Canonical names ↔ Flax paths. Oracle: each layout written out by hand in numpy indexing."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion import from_flax, to_flax
from conversion.tensors.check import check_complete
from conversion.tensors.flax_tree import FlaxTree, flatten, nest
from conversion.tensors.table import TensorTable
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_params
from vit_spec import ViTConfig, VitportError, count_parameters, list_models, parameters
from vit_spec.vit.models import MODELS

SMALL = 30_000_000
"""Parameters of a model whose every value is carried; larger ones are followed by name and shape, below."""


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", [model.name for model in MODELS if count_parameters(model.config) < SMALL])
def test_there_and_back_is_the_identity_bit_for_bit(name: str, dtype: type) -> None:
    config = next(model for model in MODELS if model.name == name).config
    params = canary_params(config, dtype)
    assert_same_tensors(from_flax(to_flax(params)), params)


@pytest.mark.parametrize("name", [model.name for model in list_models()])
def test_there_and_back_keeps_every_name_and_shape_of_every_model(name: str) -> None:
    config = next(model for model in list_models() if model.name == name).config
    params = {p.name: np.broadcast_to(np.float32(0), p.shape) for p in parameters(config)}
    tree = to_flax(params)
    assert len(tree) == len(params)
    assert {name: array.shape for name, array in from_flax(tree).items()} == {
        p.name: p.shape for p in parameters(config)
    }


def test_every_kind_of_parameter_is_laid_out_as_jax_wants_it() -> None:
    params = canary_params(ASYMMETRIC)
    tree = to_flax(params)
    linear, conv = params["blocks.10.attn.qkv.weight"], params["patch_embed.proj.weight"]
    for row, column in ((0, 0), (5, 2), (71, 23)):
        assert tree["blocks/10/attn/qkv/kernel"][column, row] == linear[row, column]
    for out, channel, y, x in ((0, 0, 0, 0), (23, 2, 1, 3), (4, 1, 3, 0)):
        assert tree["patch_embed/proj/kernel"][y, x, channel, out] == conv[out, channel, y, x]
    assert_same_tensors(
        {path: tree[path] for path in ("norm/scale", "norm/bias", "pos_embed", "blocks/0/attn/qkv/bias")},
        {
            "norm/scale": params["norm.weight"],
            "norm/bias": params["norm.bias"],
            "pos_embed": params["pos_embed"],
            "blocks/0/attn/qkv/bias": params["blocks.0.attn.qkv.bias"],
        },
    )


def test_a_square_matrix_is_transposed_too() -> None:
    square = np.arange(16.0).reshape(4, 4)
    assert (to_flax({"blocks.0.attn.proj.weight": square})["blocks/0/attn/proj/kernel"] == square.T).all()


@pytest.mark.parametrize(
    ("path", "axes", "expected"),
    [
        ("blocks/0/attn/qkv/weight", 2, "blocks/0/attn/qkv/kernel"),
        ("blocks/0/norm1/kernel", 1, "blocks/0/norm1/scale"),
        ("head/scale", 2, "head/kernel"),
    ],
)
def test_a_path_with_the_wrong_leaf_is_refused(path: str, axes: int, expected: str) -> None:
    with pytest.raises(VitportError, match=f"not a path of a Flax tree; expected {expected}"):
        from_flax({path: np.zeros((2,) * axes)})


OPTIONS = st.fixed_dictionaries(
    {
        "distilled": st.booleans(),
        "register_tokens": st.integers(0, 3),
        "mlp": st.sampled_from(["plain", "swiglu", "swiglu_packed"]),
        "mlp_hidden_dim": st.integers(1, 13),
        "num_heads": st.sampled_from([1, 2, 3, 6]),
        "layer_scale": st.sampled_from([None, 0.1]),
        **{name: st.booleans() for name in ("qkv_bias", "qk_norm", "attn_norm", "mlp_norm", "pre_norm", "patch_bias")},
        "depth": st.integers(1, 12),
        "num_classes": st.integers(0, 3),
    }
)


@settings(max_examples=60, deadline=None)
@given(OPTIONS)
def test_there_and_back_is_the_identity_for_any_config(options: dict) -> None:
    config = ViTConfig(image_size=(4, 8), patch_size=2, embed_dim=12).replace(**options)
    params = canary_params(config)
    tree = to_flax(params)
    assert_same_tensors(from_flax(tree), params)
    assert_same_tensors(flatten(nest(tree)), tree)


def test_a_norm_with_two_axes_is_refused_by_its_shape() -> None:
    """Its path is that of a linear layer's kernel, so that the tree alone allows it."""
    tree = to_flax(canary_params(ASYMMETRIC))
    tree["blocks/0/norm1/kernel"] = np.zeros((ASYMMETRIC.embed_dim, 3), np.float32)
    del tree["blocks/0/norm1/scale"]
    table, unknown = FlaxTree().read(TensorTable.of(tree))
    with pytest.raises(VitportError, match=r"blocks\.0\.norm1\.weight has shape \(3, \d+\) instead of \(\d+,\)"):
        check_complete(table.shapes, ASYMMETRIC, surplus=unknown)
