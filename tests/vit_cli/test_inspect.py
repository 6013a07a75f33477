"""``vitport inspect`` against the file itself, read by the safetensors library."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
from safetensors import safe_open

import conversion
from conversion import TensorTable
from tests.vit_cli.conftest import LABELS, TINY, tiny_checkpoint


def test_report_tells_what_the_file_holds(weights, vitport):
    """Oracles: hashlib, safetensors, and the config that was written."""
    report = json.loads(vitport("inspect", weights, "--json", "--tensors").out)
    with safe_open(weights, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert report["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert report["parameters"] == sum(array.size for array in tensors.values())
    assert report["dtypes"] == {"float32": len(tensors)}
    assert {row["name"]: (tuple(row["shape"]), row["dtype"]) for row in report["tensors"]} == {
        name: (array.shape, "float32") for name, array in tensors.items()
    }
    assert report["format"] == "timm"
    assert report["config"] == TINY.to_dict()
    assert report["preprocessing"] == tiny_checkpoint().preprocessing.to_dict()
    assert report["labels"] == list(LABELS)
    assert report["warnings"] == []


def test_every_config_fact_comes_with_who_told_it(weights, vitport):
    """The file's own record tells all of it."""
    report = json.loads(vitport("inspect", weights, "--json").out)
    assert set(report["origins"]) == set(report["config"])
    assert report["origins"]["norm_eps"] == "the file's own record"
    assert "tensors" not in report


def test_facts_that_only_the_name_tells_are_marked_so(tmp_path, vitport):
    """A bare state_dict shows its width by shapes; its heads come from the name."""
    from safetensors.numpy import save_file

    from vit_spec import get_model, parameters

    config = get_model("vit_tiny_patch16_224").config.replace(num_classes=3)
    save_file({p.name: np.ones(p.shape, np.float32) for p in parameters(config)}, tmp_path / "bare.safetensors")
    args = (tmp_path / "bare.safetensors", "--model", "vit_tiny_patch16_224")
    report = json.loads(vitport("inspect", *args, "--json").out)
    assert report["origins"]["num_heads"] == "the model name vit_tiny_patch16_224"
    assert report["origins"]["num_classes"] == "the tensors' shapes"
    text = vitport("inspect", *args).out
    (row,) = [line for line in text.splitlines() if line.startswith("num_heads")]
    assert row.split() == ["num_heads", "3", "the", "model", "name", "vit_tiny_patch16_224"]


def test_table_shows_every_tensor_when_asked(weights, vitport):
    """One row each, with its shape."""
    lines = [" ".join(line.split()) for line in vitport("inspect", weights, "--tensors").out.splitlines()]
    assert "blocks.1.attn.qkv.weight 72 x 24 float32" in lines
    assert not any(line.startswith("blocks") for line in vitport("inspect", weights).out.splitlines())


def test_weights_that_cannot_work_are_warned_of(tmp_path, vitport):
    """A NaN among the weights, and a head of zeros."""
    checkpoint = tiny_checkpoint()
    params = {name: np.array(checkpoint.params[name]) for name in checkpoint.params}
    params["blocks.0.mlp.fc1.weight"][3, 4] = np.nan
    params["blocks.0.mlp.fc1.weight"][3, 5] = np.inf
    params["head.weight"][:] = 0
    conversion.save(replace(checkpoint, params=TensorTable.of(params)), tmp_path / "bad.safetensors", format="timm")
    report = json.loads(vitport("inspect", tmp_path / "bad.safetensors", "--json").out)
    assert report["warnings"] == ["blocks.0.mlp.fc1.weight holds 2 values that are NaN or infinite"]
    assert "head.weight is zero throughout: the file holds no trained head" in report["notes"]
    out = vitport("inspect", tmp_path / "bad.safetensors").out
    assert "warning: blocks.0.mlp.fc1.weight holds 2 values" in out
    assert out.count("head.weight is zero") == 1
