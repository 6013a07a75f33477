"""The stages of a graph that is run. Oracle: ``vit_torch`` in float64, on the weights in the graph."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import conversion
from conversion import Checkpoint
from tests.conversion.onnx.write_graph import Style, vit_graph
from tests.random_weights import random_images, random_params
from vit_parity import onnx_activations, torch_activations
from vit_parity.endpoints.onnx_graph import OnnxGraph
from vit_parity.verify import Original, verify
from vit_spec import ViTConfig, VitportError
from vit_torch import create_model

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=4, num_classes=5, embed_dim=18, depth=11, num_heads=3, mlp_hidden_dim=31,
)  # fmt: skip
PARAMS = random_params(CONFIG, seed=1, dtype=np.float32)
IMAGES = random_images(CONFIG, batch=2, seed=2).transpose(0, 2, 3, 1).astype(np.float32)
STAGES = ["embed", *(f"blocks.{at}" for at in range(11)), "norm", "head"]  # so many that block 10 sorts before block 2


@pytest.fixture(scope="module")
def exact() -> dict[str, np.ndarray]:
    model = create_model(weights=Checkpoint.of(CONFIG, PARAMS), dtype=torch.float64).eval()
    return torch_activations(model, IMAGES)


@pytest.mark.parametrize("style", [Style(), Style(names=False), Style(patches="last", norm="batchnorm", qkv="heads")])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_stage_is_found_whatever_its_values_are_called(style, batch, exact, tmp_path):
    """Class token and patches. Float32 over eleven blocks: 1.1e-6 of the largest value measured."""
    onnx.save(vit_graph(PARAMS, CONFIG, style, batch), tmp_path / "a.onnx")
    found = onnx_activations(tmp_path / "a.onnx", IMAGES)
    assert list(found) == STAGES
    for stage, array in found.items():
        np.testing.assert_allclose(array, exact[stage], rtol=0, atol=5e-6 * np.abs(exact[stage]).max(), err_msg=stage)


def test_without_onnxruntime_onnx_itself_runs_the_graph(exact, tmp_path, monkeypatch):
    """1.2e-6 measured."""
    onnx.save(
        vit_graph(PARAMS, CONFIG), tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    graph = OnnxGraph(tmp_path / "a.onnx")
    assert "reference evaluator" in graph.runs_in
    for stage, array in graph.activations(IMAGES[:1]).items():
        np.testing.assert_allclose(
            array, exact[stage][:1], rtol=0, atol=5e-6 * np.abs(exact[stage]).max(), err_msg=stage
        )


def test_a_file_of_another_kind_is_refused_with_its_path(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(VitportError, match=r"weights.safetensors is not a complete ONNX file"):
        onnx_activations(tmp_path / "weights.safetensors", IMAGES)


def test_a_graph_without_a_model_is_refused(tmp_path):
    """A graph of one Relu of an image."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "none", [value], [value])
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    onnx.save(helper.make_model(graph), tmp_path / "a.onnx")
    with pytest.raises(
        VitportError,
        match=r"a.onnx: The graph's node 'y' \(Relu\), from which its output 'y' is computed, is neither a block",
    ):
        onnx_activations(tmp_path / "a.onnx", IMAGES)


@pytest.mark.parametrize(
    ("wrong", "stage"),
    [
        ({}, None),
        ({"num_heads": 2}, "blocks.0"),
        ({"norm_eps": 1e-3}, "blocks.0"),
        ({"activation": "gelu_tanh"}, "blocks.0"),
    ],
)
def test_a_fact_that_was_read_wrongly_fails_the_verification(wrong, stage, tmp_path):
    """The graph is run itself, so nothing that the reader made of it can hide a mistake of the reader."""
    config = CONFIG.replace(depth=2)
    onnx.save(vit_graph(random_params(config, seed=1, dtype=np.float32), config), tmp_path / "a.onnx")
    checkpoint = conversion.load(tmp_path / "a.onnx")
    mistaken = replace(checkpoint, config=checkpoint.config.replace(**wrong))
    conversion.save(mistaken, tmp_path / "b.safetensors", format="timm", activation="keep")
    result = conversion.load(tmp_path / "b.safetensors")
    certificate = verify(Original(tmp_path / "a.onnx", mistaken), tmp_path / "b.safetensors", result)
    assert certificate.passed == (stage is None), certificate.verdict
    if certificate.first_failure is not None:
        assert certificate.first_failure[1].name == stage
