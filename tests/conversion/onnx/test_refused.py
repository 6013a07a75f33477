"""Graphs that compute something else are refused with the node, never read as the nearest model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

import conversion
from tests.conversion.onnx.test_styles import CONFIG, PARAMS
from tests.conversion.onnx.write_graph import Style, vit_graph
from vit_spec import ViTConfig, VitportError

Change = Callable[[onnx.ModelProto], None]


def first(model: onnx.ModelProto, op: str, count: int = 0) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == op][count]


def after(op: str, at: int = 0, **attributes) -> Callable[[str], Change]:
    """Puts a node of another kind after the first of a kind."""

    def change(kind: str) -> Change:
        def insert(model: onnx.ModelProto) -> None:
            node = first(model, kind, at)
            index = list(model.graph.node).index(node)
            output = node.output[0]
            node.output[0] = "before"
            model.graph.node.insert(index + 1, helper.make_node(op, ["before"], [output], **attributes))

        return insert

    return change


def with_attribute(kind: str, name: str, value: object) -> Change:
    def change(model: onnx.ModelProto) -> None:
        node = first(model, kind)
        kept = [entry for entry in node.attribute if entry.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def constant(model: onnx.ModelProto, name: str, value: object) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))


def masked(model: onnx.ModelProto) -> None:
    """A causal mask on the logits."""
    node = first(model, "Softmax")
    N = CONFIG.num_tokens
    constant(model, "mask", np.triu(np.full((N, N), -1e9, np.float32), 1))
    model.graph.node.insert(
        list(model.graph.node).index(node), helper.make_node("Add", [node.input[0], "mask"], ["masked"])
    )
    node.input[0] = "masked"


def other_epsilon(model: onnx.ModelProto) -> None:
    node = first(model, "LayerNormalization", 2)
    next(entry for entry in node.attribute if entry.name == "epsilon").f = 1e-3


def other_activation(model: onnx.ModelProto) -> None:
    first(model, "Erf").op_type = "Tanh"


def scaled_half(model: onnx.ModelProto) -> None:
    """One block's attention is scaled by a half more."""
    node = first(model, "Softmax")
    constant(model, "half", np.float32(0.5))
    model.graph.node.insert(
        list(model.graph.node).index(node), helper.make_node("Mul", [node.input[0], "half"], ["halved"])
    )
    node.input[0] = "halved"


def second_linear(model: onnx.ModelProto) -> None:
    """An MLP as a head."""
    last = first(model, "Gemm")
    constant(model, "w", np.eye(5, dtype=np.float32) * 2)
    model.graph.node.append(helper.make_node("Relu", [last.output[0]], ["r"]))
    model.graph.node.append(helper.make_node("MatMul", ["r", "w"], ["logits"]))
    model.graph.output[0].name = "logits"


def shuffled_patches(model: onnx.ModelProto) -> None:
    """Patches column by column."""
    node = first(model, "Concat")
    n = CONFIG.num_patches
    constant(model, "columns", np.arange(n).reshape(CONFIG.grid_size).T.reshape(-1))
    model.graph.node.insert(
        list(model.graph.node).index(node), helper.make_node("Gather", [node.input[1], "columns"], ["moved"], axis=1)
    )
    node.input[1] = "moved"


def swapped_heads(model: onnx.ModelProto) -> None:
    """Each channel of a head from another head: no order of channels in the projection undoes attention's."""
    node = first(model, "MatMul", 2)
    constant(model, "rolled", np.roll(np.arange(CONFIG.num_tokens), 1))
    model.graph.node.insert(
        list(model.graph.node).index(node) + 1, helper.make_node("Gather", ["rows", "rolled"], [node.output[0]], axis=2)
    )
    node.output[0] = "rows"


def replaced(old: float, new: float) -> Change:
    """Another number for the first constant of that value."""

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if (
                not tensor.dims
                and tensor.data_type == onnx.TensorProto.FLOAT
                and abs(float(onnx.numpy_helper.to_array(tensor)) - old) < 1e-6
            ):
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(new, np.float32), tensor.name))
                return
        raise AssertionError(f"no constant is {old}")

    return change


ALMOST: dict[str, tuple[ViTConfig, Style, Change]] = {
    "erf of another width": (CONFIG, Style(), replaced(2**0.5, 1.413)),
    "tanh with another cube": (CONFIG.replace(activation="gelu_tanh"), Style(), replaced(0.044715, 0.0445)),
    "fourth power": (CONFIG.replace(activation="gelu_tanh"), Style(), replaced(3, 4)),
    "no half": (CONFIG.replace(activation="gelu_tanh"), Style(), replaced(1, 0.99)),
    "a root of another sum": (CONFIG, Style(norm="batchnorm"), replaced(CONFIG.norm_eps, -0.5)),
}
"""Functions that are nearly a known one."""


@pytest.mark.parametrize("name", ALMOST)
def test_what_is_nearly_a_known_function_is_not_taken_for_it(name, tmp_path):
    config, style, change = ALMOST[name]
    model = vit_graph(PARAMS, config, style)
    change(model)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(VitportError, match=r"was expected|not computed from their norm"):
        conversion.load(tmp_path / "a.onnx")


REFUSED: dict[str, tuple[Change, str]] = {
    "unknown-operation": (after("Hardmax", axis=-1)("Add"), r"depends on node .*\(Hardmax\), which is not an oper"),
    "other-domain": (after("Mystery", domain="acme")("Conv"), r"\(acme::Mystery\)"),
    "overlapping-patches": (with_attribute("Conv", "strides", [2, 2]), r"\(Conv\), whose windows overlap"),
    "mask": (masked, r"biases and masks on attention are not read"),
    "two-epsilons": (other_epsilon, r"more than one epsilon: 1e-05 at node .*, 0.001 at node"),
    "no-known-activation": (other_activation, r"or a known activation of a linear layer"),
    "two-scales": (scaled_half, r"more than one scale of attention"),
    "mlp-head": (
        second_linear,
        r"\(Relu\), from which its output 'logits' is computed, is neither a block .* nor a head",
    ),
    "shuffled-patches": (shuffled_patches, r"all patches in order were expected"),
    "tokens-moved": (swapped_heads, r"does not concatenate the heads|reads some tokens"),
    "noise": (after("RandomNormalLike")("Softmax"), r"\(RandomNormalLike\)"),
    "quantised": (
        after("DynamicQuantizeLinear")("Softmax"),
        r"The graph is quantised: its node .*DynamicQuantizeLinear",
    ),
    "rounded": (after("Round")("Softmax"), r"Round"),
    "batch-norm": (after("InstanceNormalization")("Conv"), r"\(InstanceNormalization\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_with_its_node(name, tmp_path):
    change, told = REFUSED[name]
    model = vit_graph(PARAMS, CONFIG, Style())
    change(model)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(VitportError, match=told) as caught:
        conversion.load(tmp_path / "a.onnx")
    assert str(tmp_path / "a.onnx") in str(caught.value)


@pytest.mark.parametrize("form", ["QOperator", "QDQ"])
@pytest.mark.parametrize("operations", [["MatMul"], ["Conv"], ["Gemm"], None], ids=["MatMul", "Conv", "Gemm", "all"])
def test_a_graph_that_onnxruntime_quantised_is_refused_by_that_name(form, operations, tmp_path, capfd):
    """By a calibration: what layers compute is rounded, in operators of integers or between pairs of conversions."""
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"image": np.ones((1, 3, *CONFIG.image_size), np.float32) * at} for at in (-1, 1)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    onnx.save(vit_graph(PARAMS, CONFIG, Style()), tmp_path / "a.onnx")
    quantization.quantize_static(
        tmp_path / "a.onnx", tmp_path / "q.onnx", Images(), quant_format=quantization.QuantFormat[form],
        op_types_to_quantize=operations,
    )  # fmt: skip
    capfd.readouterr()
    operators = {node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node}
    assert (
        {"QLinearMatMul", "QLinearConv", "QGemm"} & operators if form == "QOperator" else "QuantizeLinear" in operators
    )
    with pytest.raises(VitportError, match=r"q\.onnx: The graph is quantised: its node .*\(\w*Quantize\w*\) rounds"):
        conversion.load(tmp_path / "q.onnx")


def test_a_part_of_a_graph_is_read_by_the_name_of_its_last_value(tmp_path):
    """The way out for a head that is none."""
    model = vit_graph(PARAMS, CONFIG, Style())
    logits = first(model, "Gemm").output[0]
    second_linear(model)
    onnx.save(model, tmp_path / "a.onnx")
    checkpoint = conversion.load(tmp_path / "a.onnx", weights_key=logits)
    assert checkpoint.config == CONFIG
    with pytest.raises(VitportError, match="uses 'nothing', which no node before it computes"):
        conversion.load(tmp_path / "a.onnx", weights_key="nothing")
