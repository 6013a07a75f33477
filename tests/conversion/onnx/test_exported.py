"""Graphs of torch's two exporters, before and after onnxruntime's optimisations: ``make_graphs.py`` wrote them.

Oracles: what the PyTorch model gave when the graph was made, and onnxruntime on the graph for the tokens of each stage.
"""

from __future__ import annotations

import io
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import conversion
from tests.small_configs import COMBINATIONS, CONFIGS
from vit_parity import torch_activations
from vit_parity.endpoints.onnx_graph import OnnxGraph
from vit_spec import VitportError
from vit_torch import create_model

with tarfile.open(Path(__file__).parent / "graphs.tar.xz") as _archive:
    MEMBERS = {it.name: file.read() for it in _archive if (file := _archive.extractfile(it)) is not None}
NAMES = [name for name in MEMBERS if name.endswith(".onnx")]
READ = [name for name in NAMES if "quantised" not in name]
TOLERANCE = 1e-5
"""Of the largest value, in float32; 7e-7 measured."""


@cache
def answers(model: str) -> dict[str, np.ndarray]:
    """The image, and the PyTorch model's outputs."""
    with np.load(io.BytesIO(MEMBERS[f"{model}.npz"])) as arrays:
        return dict(arrays)


def extracted(name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(MEMBERS[name])
    return path


def assert_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max(), err_msg=what)


def is_close(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("name", READ)
def test_an_exported_graph_is_the_model_that_was_exported(name, tmp_path):
    path = extracted(name, tmp_path)
    known = answers(name.split(".")[0])
    images = known["image"].transpose(0, 2, 3, 1)
    checkpoint = conversion.load(path)  # no fact is given
    sized = conversion.prepare(None, weights=checkpoint, image_size=images.shape[1:3])
    found = torch_activations(create_model(weights=sized).eval(), images)
    stages = OnnxGraph(path).activations(images)
    assert "head" in stages or "norm" in stages
    for stage, array in stages.items():
        assert_close(found[stage], array, stage)
    outputs = [known[key] for key in known if key != "image"]
    ours = [found["head"], found["norm"]]
    alike = [it for it in outputs if any(is_close(array, it) for array in ours)]
    assert any(it.shape == found["head"].shape for it in alike) or all(it.ndim == 3 for it in outputs)


@pytest.mark.parametrize("name", [name for name in READ if name.startswith("ours-")])
def test_our_own_models_come_back_with_their_config(name, tmp_path):
    """Except what an exporter folded: a token's position into the token, LayerScale's initial value."""
    config = (CONFIGS | COMBINATIONS)[name.split(".")[0].removeprefix("ours-")]
    found = conversion.load(extracted(name, tmp_path)).config
    open_fields = {"layer_scale", "pos_embed", "qk_scale"}
    open_fields |= {"final_norm"} if config.pool == "token" else set()  # a token's norm is the same before pooling
    differing = {
        field
        for field, value in config.to_dict().items()
        if found.to_dict()[field] != value and field not in open_fields
    }
    allowed = {"pos_embed_resize", "mlp_ratio", "mlp_hidden_dim", "norm_bias"}
    assert differing <= allowed, differing
    assert found.hidden_dim == config.hidden_dim
    assert abs(found.attention_scale - config.attention_scale) < 1e-6


def test_a_quantised_graph_is_refused_by_that_name(tmp_path):
    (name,) = [name for name in NAMES if "quantised" in name]
    with pytest.raises(VitportError, match=r"The graph is quantised: its node .*DynamicQuantizeLinear"):
        conversion.load(extracted(name, tmp_path))
