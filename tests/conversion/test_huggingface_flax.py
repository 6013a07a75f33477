"""Hugging Face's Flax folders. Oracle: transformers' PyTorch model, laid out by hand as its Flax twin was."""

from __future__ import annotations

import flax.serialization
import numpy as np
import pytest
import torch
import transformers

import conversion
from conversion.tensors.flax_tree import nest
from tests.conversion.canaries import assert_same_tensors
from vit_spec import ViTConfig, VitportError

SIZES = {"hidden_size": 12, "num_hidden_layers": 11, "num_attention_heads": 3, "image_size": 12, "patch_size": 4}
CONFIG = transformers.ViTConfig(**SIZES, intermediate_size=20, num_labels=5, hidden_act="gelu_new")


def _flax(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Kernels (in, out), or (height, width, in, out); norms have a scale."""
    tree: dict[str, np.ndarray] = {}
    for name, parameter in model.state_dict().items():
        array, path = parameter.numpy(), name.replace(".", "/")
        if path.endswith("weight"):
            array = array.transpose({1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[array.ndim])
            path = path.removesuffix("weight") + ("scale" if array.ndim == 1 else "kernel")
        for memory, disk in {"/layers/": "/encoder/layer/", "q_proj": "attention/query", "k_proj": "attention/key",
                             "v_proj": "attention/value", "o_proj": "output/dense", "mlp/fc1": "intermediate/dense",
                             "mlp/fc2": "output/dense"}.items():  # fmt: skip
            path = path.replace(memory, disk)
        tree[path] = np.ascontiguousarray(array)
    return tree


@pytest.fixture
def model() -> transformers.ViTForImageClassification:
    model = transformers.ViTForImageClassification(CONFIG)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_a_flax_folder_reads_as_its_pytorch_twin_does(model, tmp_path) -> None:
    model.save_pretrained(tmp_path / "torch")
    (tmp_path / "flax").mkdir()
    CONFIG.save_pretrained(tmp_path / "flax")
    (tmp_path / "flax" / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(nest(_flax(model))))
    expected, actual = conversion.load(tmp_path / "torch"), conversion.load(tmp_path / "flax")
    assert actual.provenance.format == "huggingface-flax"
    assert actual.config == expected.config
    assert_same_tensors(actual.params, expected.params)


def test_a_file_without_its_folder_needs_a_named_model(model, tmp_path) -> None:
    (tmp_path / "w.msgpack").write_bytes(flax.serialization.to_bytes(nest(_flax(model))))
    with pytest.raises(VitportError, match="does not say its num_heads, activation, norm_eps"):
        conversion.load(tmp_path / "w.msgpack")


def test_there_and_back_is_the_identity(model) -> None:
    names = conversion.FORMATS["huggingface-flax"].names
    tree = {path.removeprefix("vit/"): array for path, array in _flax(model).items()}
    table, unknown = names.read(conversion.TensorTable.of(tree))
    assert unknown == []
    assert_same_tensors(names.write(table, ViTConfig()), tree)
