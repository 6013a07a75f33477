"""The graph's intermediate results against the same arithmetic in numpy float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vit_parity import onnx_activations
from vit_parity.endpoints.vit.onnx_graph import token_outputs
from vit_spec import VitportError

D, EPS = 5, 1e-6


def _norm_nodes(prefix: str, source: str, *, spelled: bool) -> list[onnx.NodeProto]:
    """A LayerNorm ``prefix`` of ``source``, as one node or in the eight that older exporters write."""
    weight, bias, out = f"{prefix}.weight", f"{prefix}.bias", f"{prefix}.out"
    if not spelled:
        return [helper.make_node("LayerNormalization", [source, weight, bias], [out], axis=-1, epsilon=EPS)]
    steps = [
        ("ReduceMean", [source], "mean", {"axes": [-1]}),
        ("Sub", [source, f"{prefix}.mean"], "centred", {}),
        ("Mul", [f"{prefix}.centred", f"{prefix}.centred"], "square", {}),
        ("ReduceMean", [f"{prefix}.square"], "variance", {"axes": [-1]}),
        ("Add", [f"{prefix}.variance", "eps"], "shifted", {}),
        ("Sqrt", [f"{prefix}.shifted"], "root", {}),
        ("Div", [f"{prefix}.centred", f"{prefix}.root"], "ratio", {}),
        ("Mul", [f"{prefix}.ratio", weight], "scaled", {}),
    ]
    nodes = [helper.make_node(kind, inputs, [f"{prefix}.{name}"], **more) for kind, inputs, name, more in steps]
    return [*nodes, helper.make_node("Add", [f"{prefix}.scaled", bias], [out])]


def _graph(names: dict[str, str], *, spelled: bool) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Pixels as tokens, twelve blocks ``x + norm(x)`` and a last norm; so many that block 10 sorts before block 2."""
    rng = np.random.default_rng(0)
    weights = {"eps": np.float32(EPS)}
    nodes = [helper.make_node("Transpose", ["image"], ["moved"], perm=[0, 2, 3, 1])]
    nodes.append(helper.make_node("Reshape", ["moved", "shape"], ["tokens"]))
    shape = numpy_helper.from_array(np.array([0, -1, D], np.int64), "shape")
    at = "tokens"
    for block in range(12):
        norm = names["block"].format(i=block)
        nodes += _norm_nodes(norm, at, spelled=spelled)
        nodes.append(helper.make_node("Add", [at, f"{norm}.out"], [f"sum{block}"]))
        at = f"sum{block}"
    nodes += _norm_nodes(names["final"], at, spelled=spelled)
    nodes.append(helper.make_node("Relu", [f"{names['final']}.out"], ["answer"]))
    for prefix in [names["block"].format(i=block) for block in range(12)] + [names["final"]]:
        weights[f"{prefix}.weight"] = rng.standard_normal(D).astype(np.float32)
        weights[f"{prefix}.bias"] = rng.standard_normal(D).astype(np.float32)
    graph = helper.make_graph(
        nodes, "vit",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, D, 2, 3])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)],
        [shape, *(numpy_helper.from_array(array, name) for name, array in weights.items())],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), weights


def _expected(names: dict[str, str], weights: dict[str, np.ndarray], images: np.ndarray) -> dict[str, np.ndarray]:
    def norm(x, prefix):
        centred = x - x.mean(-1, keepdims=True)
        ratio = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
        return ratio * weights[f"{prefix}.weight"] + weights[f"{prefix}.bias"]

    x = images.astype(np.float64).reshape(len(images), -1, D)
    found = {"embed": x}
    for block in range(12):
        found[f"blocks.{block}"] = x = x + norm(x, names["block"].format(i=block))
    return found | {"norm": norm(x, names["final"])}


@pytest.mark.parametrize("spelled", [False, True], ids=["one node", "spelled out"])
@pytest.mark.parametrize(
    "names",
    [
        {"block": "backbone.encoder.layer.{i}.norm1", "final": "backbone.layernorm"},
        {"block": "vit.encoder.layer.{i}.layernorm_before", "final": "vit.layernorm"},
        {"block": "blocks.{i}.norm1", "final": "norm"},
    ],
    ids=["dinov2", "huggingface", "timm"],
)
def test_every_stage_is_found_in_the_graph(tmp_path, names, spelled):
    """Oracle: the same network in numpy float64; float32 over twelve blocks of order 10 measured 4e-6."""
    model, weights = _graph(names, spelled=spelled)
    onnx.save(model, tmp_path / "vit.onnx")
    images = np.random.default_rng(1).standard_normal((2, 2, 3, D)).astype(np.float32)
    found = onnx_activations(tmp_path / "vit.onnx", images)
    expected = _expected(names, weights, images)
    assert list(found) == list(expected)
    for stage, array in expected.items():
        np.testing.assert_allclose(found[stage], array, rtol=0, atol=5e-5, err_msg=stage)


def test_a_file_of_another_kind_is_refused_with_its_path(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(VitportError, match=r"weights.safetensors is not a complete ONNX file .*: give an .onnx file"):
        onnx_activations(tmp_path / "weights.safetensors", np.zeros((1, 2, 3, D), np.float32))


def test_a_graph_without_a_vit_s_norms_is_refused():
    """A graph of one Relu."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "none", [value], [value])
    with pytest.raises(VitportError, match="no norms"):
        token_outputs(graph)
