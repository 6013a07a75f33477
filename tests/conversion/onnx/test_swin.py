"""Graphs of Swin Transformers by torch's two exporters: ``make_swin_graphs.py`` wrote them.

Oracles: what the PyTorch model of this project, of transformers, of timm or of torchvision gave when the graph was
made, and onnxruntime on the graph for the tokens of each block.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import conversion
from conversion import Checkpoint
from tests.conversion.onnx.test_exported import assert_close
from tests.conversion.swin.models import BASE, weights
from tests.cross.test_swin_parity import slow_but
from tests.vit_parity.test_swin import (
    columns,
    even_blocks,
    no_sigmoid,
    norms_moved,
    other_way,
    transposed,
    unmasked,
    unshifted,
)
from vit_parity import torch_activations
from vit_parity.endpoints.onnx_graph import OnnxGraph
from vit_spec import SwinConfig, VitportError
from vit_torch import create_model

MEMBERS: dict[str, bytes] = {}
for _archive in ("swin_graphs.tar.xz", "swin_graphs_of_peers.tar.xz"):
    with tarfile.open(Path(__file__).parent / _archive) as _opened:
        MEMBERS |= {it.name: file.read() for it in _opened if (file := _opened.extractfile(it)) is not None}
NAMES = [name for name in MEMBERS if name.endswith(".onnx")]
pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's
ODD = BASE.replace(image_size=(24, 40), window_rule="axis", pad_order="roll_pad")


def extracted(name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(MEMBERS[name])
    return path


def exported(model: Any, config: SwinConfig, folder: Path, **options: Any) -> Path:
    """A graph by torch's first exporter."""
    path, image = folder / "graph.onnx", torch.zeros(1, config.in_channels, *config.image_size)
    torch.onnx.export(model.eval(), (image,), str(path), dynamo=False, opset_version=14, **options)
    return path


def model_of(config: SwinConfig) -> Any:
    return create_model(weights=Checkpoint.of(config, weights(config, dtype=np.float32))).eval()


def check_is_exported(path: Path, name: str) -> None:
    """A graph is the model that was exported under a name."""
    with np.load(io.BytesIO(MEMBERS[f"{name.split('.', maxsplit=1)[0]}.npz"])) as arrays:
        images, expected = arrays["image"].transpose(0, 2, 3, 1), arrays["output"]
    checkpoint = conversion.load(path)
    found = torch_activations(create_model(weights=checkpoint).eval(), images)
    assert_close(found["head"], expected, "head")
    stages = OnnxGraph(path).activations(images)
    assert {"head", "layers.0.blocks.0", "layers.1.blocks.1"} <= set(stages)
    for stage, array in stages.items():
        assert_close(found[stage], array, stage)


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_graph_is_the_model_that_was_exported(name: str, tmp_path: Path) -> None:
    """No fact is given. Measured 7e-7 of the largest value; transformers' doubled mask does not show."""
    check_is_exported(extracted(name, tmp_path), name)


def optimised(path: Path, *disabled: str) -> Path:
    """The graph as onnxruntime saves it, which moves transposes past norms and past the lengths of queries and keys."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(path.parent / "optimised.onnx"), 4
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
    )
    return path.parent / "optimised.onnx"


OPTIMISED = ["ours-1.old-14.onnx", "transformers-1.old-14.onnx", "ours-2.old-14.onnx", "torchvision-2.old-14.onnx"]


@pytest.mark.parametrize("name", slow_but(OPTIMISED, NAMES))
def test_a_graph_that_onnxruntime_optimised_is_the_same_model(name: str, tmp_path: Path) -> None:
    """Version 2's network of biases must not be folded into its results: then it is gone, and what to do is named."""
    path = extracted(name, tmp_path)
    if "-2" not in name.partition(".")[0]:
        check_is_exported(optimised(path), name)
        return
    with pytest.raises(VitportError, match="are gone: read the graph from before onnxruntime optimised it"):
        conversion.load(optimised(path))
    check_is_exported(optimised(path, "ConstantFolding"), name)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("ours-")])
def test_windows_rule_and_order_come_back(name: str, tmp_path: Path) -> None:
    config = conversion.load(extracted(name, tmp_path)).config
    assert isinstance(config, SwinConfig)
    told = (config.version, config.window_sizes[0][0], config.pretrained_window_sizes[0], config.window_rule)
    assert (
        told
        == {
            "ours-1": (1, 4, (0, 0), "axis"),
            "ours-2": (2, 4, (0, 0), "axis"),
            "ours-2-pretrained": (2, 4, (3, 3), "axis"),
            "ours-1-pad": (1, 7, (0, 0), "pad"),
            "ours-1-never": (1, 7, (0, 0), "never"),
        }[name.split(".", maxsplit=1)[0]]
    )
    if name.split(".", maxsplit=1)[0] in ("ours-1", "ours-2"):
        assert config.pad_order == "roll_pad"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_way, "that are not windows of a Swin Transformer"),
        (even_blocks, "shifts the windows of block 0"),
        (unshifted, "follow no rule"),
        (unmasked, "adds no mask to windows that are shifted"),
        (norms_moved, "norms of one version and scores of the other"),
    ],
)
def test_a_graph_of_another_function_is_refused(
    change: Callable[[Any], None], message: str, version: int, tmp_path: Path
) -> None:
    config = ODD.replace(version=version)
    model = model_of(config)
    change(model)
    with pytest.raises(VitportError, match=message):
        conversion.load(exported(model, config, tmp_path))


@pytest.mark.parametrize("change", [transposed, columns])
def test_an_index_of_offsets_in_another_order_is_read_as_what_it_does(
    change: Callable[[Any], None], tmp_path: Path
) -> None:
    """Version 1's table is reordered: the function is the graph's. Version 2's network has no such freedom."""
    model = model_of(ODD)
    change(model)
    image = np.random.default_rng(0).standard_normal((1, 24, 40, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()
    path = exported(model, ODD, tmp_path)
    assert_close(torch_activations(create_model(weights=conversion.load(path)).eval(), image)["head"], expected, "head")
    config = ODD.replace(version=2)
    second = model_of(config)
    change(second)
    with pytest.raises(VitportError, match="not 16 times the sigmoid"):
        conversion.load(exported(second, config, tmp_path))


def test_biases_computed_by_the_exporter_are_refused(tmp_path: Path) -> None:
    config = ODD.replace(version=2)
    model = model_of(config)
    no_sigmoid(model)  # which makes a constant of the table
    with pytest.raises(VitportError, match="weights of their network are gone"):
        conversion.load(exported(model, config, tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2, "activation": "gelu_tanh", "norm_eps": 1e-6, "patch_norm_eps": 1e-3, "patch_norm": False},
        {"version": 2, "qkv_bias": False, "depths": (1, 3), "absolute_pos_embed": True},
        {"image_size": (20, 36), "window_sizes": ((4, 3), (2, 5)), "qkv_bias": False, "num_classes": 0},
    ],
)
def test_options_come_back(changes: dict[str, Any], tmp_path: Path) -> None:
    config = ODD.replace(**changes)
    found = conversion.load(exported(model_of(config), config, tmp_path)).config.to_dict()
    unlike = {name for name, value in config.to_dict().items() if found[name] != value}
    assert unlike <= {"drop_path_rate"}
