"""The same model written in many ways gives the same config and weights. Oracle: onnxruntime, running the graph."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest

import conversion
from tests.conversion.onnx.write_graph import Style, vit_graph
from tests.random_weights import random_images, random_params
from vit_parity import torch_activations
from vit_parity.endpoints.onnx_graph import OnnxGraph
from vit_spec import ViTConfig, VitportError
from vit_torch import create_model

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=4, num_classes=5, embed_dim=18, depth=2, num_heads=3, mlp_hidden_dim=31,
    norm_eps=1e-5,
)  # fmt: skip
PARAMS = random_params(CONFIG, seed=3, dtype=np.float32)
STYLES = {
    **{f"patches-{it}": Style(patches=it) for it in ("conv", "reshape", "last", "pixels", "extract")},
    **{f"norm-{it}": Style(norm=it) for it in ("spelled", "twice", "batchnorm", "skip")},
    **{f"qkv-{it}": Style(qkv=it) for it in ("split", "separate", "heads", "attention")},
    **{f"scale-{it}": Style(scale=it) for it in ("query", "both", "divided", "weights", "shifted", "keys")},
    **{f"linear-{it}": Style(linear=it) for it in ("gemm", "transposed", "cast", "left")},
    **{f"pool-{it}": Style(pool=it) for it in ("slice", "early")},
    "activation-node": Style(activation="node", opset=20),
    "activation-fused": Style(activation="fused"),
    "softmax": Style(end="softmax"),
    "anonymous": Style(names=False),
    "version-18": Style(opset=18, norm="spelled"),
    "keras": Style(patches="last", norm="batchnorm", qkv="heads", scale="query", names=False, pool="slice"),
}


@pytest.mark.parametrize("name", STYLES)
def test_every_way_to_write_a_model_is_the_same_model(name, tmp_path):
    """Tokens of every stage and the logits; 8e-7 of the largest value measured at worst."""
    onnx.save(vit_graph(PARAMS, CONFIG, STYLES[name]), tmp_path / "a.onnx")
    checkpoint = conversion.load(tmp_path / "a.onnx")
    unscaled = {"qk_scale": 1.0} if name == "scale-weights" else {}
    assert checkpoint.config == CONFIG.replace(**unscaled)
    images = random_images(CONFIG, batch=2, seed=1).transpose(0, 2, 3, 1)
    expected = OnnxGraph(tmp_path / "a.onnx").activations(images)
    assert {"blocks.1", "head"} <= set(expected)
    found = torch_activations(create_model(weights=checkpoint).eval(), images)
    for stage, array in expected.items():
        np.testing.assert_allclose(found[stage], array, rtol=0, atol=5e-6 * np.abs(array).max(), err_msg=stage)
    if name not in ("patches-pixels", "scale-weights"):  # elsewhere every weight is the one that was written
        for key, array in PARAMS.items():
            np.testing.assert_array_equal(checkpoint.params[key], array, err_msg=key)


def test_a_gelu_by_tensorflows_erfc_is_read(tmp_path):
    """tf2onnx leaves it in graphs, which no runtime computes: the weights are the ones that were written."""
    onnx.save(vit_graph(PARAMS, CONFIG, Style(activation="erfc", scale="keys")), tmp_path / "a.onnx")
    checkpoint = conversion.load(tmp_path / "a.onnx")
    assert checkpoint.config == CONFIG
    for key, array in PARAMS.items():
        np.testing.assert_array_equal(checkpoint.params[key], array, err_msg=key)


def test_a_graph_of_a_larger_batch_is_the_same_model(tmp_path):
    """Batches are a side of every value, and must not be taken for heads or tokens."""
    for style in (Style(), Style(linear="gemm", qkv="split"), Style(qkv="heads", norm="batchnorm")):
        onnx.save(vit_graph(PARAMS, CONFIG, style, batch=3), tmp_path / "a.onnx")
        checkpoint = conversion.load(tmp_path / "a.onnx")
        assert checkpoint.config == CONFIG
        for key, array in PARAMS.items():
            np.testing.assert_array_equal(checkpoint.params[key], array, err_msg=key)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e-5, 0.1])
@pytest.mark.parametrize("style", [Style(), Style(norm="batchnorm"), Style(norm="spelled", activation="fused")])
def test_epsilon_and_activation_are_told_by_the_graph(activation, eps, style, tmp_path):
    config = CONFIG.replace(activation=activation, norm_eps=eps)
    onnx.save(vit_graph(PARAMS, config, replace(style, names=False)), tmp_path / "a.onnx")
    assert conversion.load(tmp_path / "a.onnx").config == config


def narrowed(model: onnx.ModelProto, dtype: np.dtype) -> onnx.ModelProto:
    """The graph with every float in 16 bits."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    for tensor in list(model.graph.initializer):
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, kind, array.shape, array.tobytes(), raw=True))
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("style", [Style(), Style(norm="spelled", qkv="split"), Style(qkv="separate", scale="both")])
def test_half_precision_is_read_as_it_is(dtype, style, tmp_path):
    """Constants of GELU, epsilon and scale are rounded too, and must not be taken for other ones."""
    onnx.save(narrowed(vit_graph(PARAMS, CONFIG, style), np.dtype(dtype)), tmp_path / "a.onnx")
    checkpoint = conversion.load(tmp_path / "a.onnx")
    assert checkpoint.config == CONFIG
    for key, array in PARAMS.items():
        np.testing.assert_array_equal(checkpoint.params[key], array.astype(dtype), err_msg=key)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("style", [Style(), Style(norm="spelled", qkv="split"), Style(qkv="separate", scale="both")])
def test_half_precision_is_verified_to_the_rounding_of_float32(dtype, style, tmp_path):
    """The graph runs in float32, its weights the same and its rounded constants restored. In 16 bits it is 4e-3 off."""
    onnx.save(narrowed(vit_graph(PARAMS, CONFIG, style), np.dtype(dtype)), tmp_path / "a.onnx")
    checkpoint, graph = conversion.load(tmp_path / "a.onnx"), OnnxGraph(tmp_path / "a.onnx")
    assert graph.dtype == "float32"
    images = np.random.default_rng(0).standard_normal((1, *CONFIG.image_size, 3))
    found = torch_activations(create_model(weights=checkpoint).float().eval(), images)
    for stage, array in graph.activations(images).items():
        np.testing.assert_allclose(found[stage], array, rtol=0, atol=5e-6 * np.abs(array).max(), err_msg=stage)


def test_a_rounded_constant_of_unknown_origin_leaves_the_graph_in_16_bits(tmp_path):
    model = narrowed(vit_graph(PARAMS, CONFIG, Style(qkv="separate", scale="both")), np.dtype(np.float16))
    scales = [it for it in model.graph.initializer if not it.dims and onnx.numpy_helper.to_array(it) < 1]
    for tensor in scales:
        if abs(onnx.numpy_helper.to_array(tensor) - (CONFIG.head_dim**-0.25)) < 1e-3:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(0.6173, np.float16), tensor.name))
    onnx.save(model, tmp_path / "a.onnx")
    assert OnnxGraph(tmp_path / "a.onnx").dtype == "float16"


def test_weights_stored_as_integers_with_scales_are_multiplied_out(tmp_path):
    """DequantizeLinear with a scale for each output; told in a note. Oracle: onnxruntime on the same graph."""
    model = vit_graph(PARAMS, CONFIG, Style(names=False))
    rng, nodes = np.random.default_rng(0), []
    for tensor in [it for it in model.graph.initializer if len(it.dims) == 2 and min(it.dims) > 5]:
        array = onnx.numpy_helper.to_array(tensor)
        scale = (np.abs(array).max(0) / 127).astype(np.float32)
        name = tensor.name
        integers = np.round(array / scale).astype(np.int8)
        tensor.CopyFrom(onnx.numpy_helper.from_array(integers, f"{name}.int8"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}.scale"))
        nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=1))
    body = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *body])
    onnx.save(model, tmp_path / "a.onnx")
    checkpoint = conversion.load(tmp_path / "a.onnx")
    assert f"dequantised {len(nodes)} weights by their scales" in checkpoint.provenance.notes
    images = rng.standard_normal((1, *CONFIG.image_size, 3))
    expected = OnnxGraph(tmp_path / "a.onnx").activations(images)
    found = torch_activations(create_model(weights=checkpoint).eval(), images)
    for stage, array in expected.items():
        np.testing.assert_allclose(found[stage], array, rtol=0, atol=5e-6 * np.abs(array).max(), err_msg=stage)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_weights_of_few_bits_are_multiplied_out(bits: int, zeros: bool, tmp_path):
    """MatMulNBits, whose rows are not a whole number of blocks. Oracle: onnxruntime on the same graph."""
    model, rng, block = vit_graph(PARAMS, CONFIG, Style(names=False)), np.random.default_rng(0), 16
    shapes = {it.name: tuple(it.dims) for it in model.graph.initializer}
    replaced = [
        node for node in model.graph.node if node.op_type == "MatMul" and len(shapes.get(node.input[1], ())) == 2
    ]
    for node in replaced:
        name, (K, N) = node.input[1], shapes[node.input[1]]
        blocks, to = -(-K // block), 8 // bits
        numbers = rng.integers(0, 1 << bits, (N, blocks, block), np.uint8).reshape(N, blocks, -1, to)
        packed = sum(numbers[..., at] << (bits * at) for at in range(to)).astype(np.uint8)
        scale = rng.uniform(0.5, 1.5, (N, blocks)).astype(np.float32) / (1 << bits)
        arrays = {f"{name}.q": packed, f"{name}.scale": scale}
        if zeros:
            arrays[f"{name}.zero"] = rng.integers(0, 256, (N, -(-blocks // to)), np.uint8)
        for key, array in arrays.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
        inputs, output = [node.input[0], *arrays], node.output[0]
        settings = {"K": K, "N": N, "bits": bits, "block_size": block}
        node.CopyFrom(onnx.helper.make_node("MatMulNBits", inputs, [output], domain="com.microsoft", **settings))
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, tmp_path / "a.onnx")
    checkpoint = conversion.load(tmp_path / "a.onnx")
    assert f"dequantised {len(replaced)} weights by their scales" in checkpoint.provenance.notes
    images = rng.standard_normal((1, *CONFIG.image_size, 3))
    found = torch_activations(create_model(weights=checkpoint).eval(), images)
    for stage, array in OnnxGraph(tmp_path / "a.onnx").activations(images).items():
        np.testing.assert_allclose(found[stage], array, rtol=0, atol=5e-6 * np.abs(array).max(), err_msg=stage)
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            node.attribute.append(onnx.helper.make_attribute("accuracy_level", 4))  # its input is rounded to int8
    onnx.save(model, tmp_path / "b.onnx")
    with pytest.raises(VitportError, match=r"The graph is quantised: its node .*MatMulNBits"):
        conversion.load(tmp_path / "b.onnx")
