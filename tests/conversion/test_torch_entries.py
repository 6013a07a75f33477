"""Training checkpoints of PyTorch: where their weights lie. Oracle: the tensors that torch saved."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import conversion
from tests.conversion.canaries import ASYMMETRIC, assert_same_tensors, canary_params
from vit_spec import VitportError

CONFIG = ASYMMETRIC.replace(image_size=12, depth=2, representation_size=None)
PARAMS = canary_params(CONFIG)
STATE = {name: torch.from_numpy(array) for name, array in PARAMS.items()}
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}
ADAM = {"state": {0: {"exp_avg": torch.ones(3, 3), "step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}


def _load(path: Path, content: Any, **options: Any) -> conversion.Checkpoint:
    torch.save(content, path / "w.pth")
    return conversion.load(path / "w.pth", model=CONFIG, **options)


WRAPPED = {
    "two deep": {"checkpoint": {"model": STATE, "epoch": 1}, "config": {"lr": 1}},
    "vissl": {"classy_state_dict": {"base_model": {"model": {"trunk": STATE, "heads": {}}, "meters": {}}}},
    "rng_state": {"model": STATE, "rng_state": torch.zeros(50, dtype=torch.uint8), "optimizer": ADAM},
    "class_weights": {"class_weights": torch.ones(7), "net": STATE, "args": argparse.Namespace(lr=1)},
    "a dotted stray": {"data.mean": torch.ones(3), "data.std": torch.ones(3), "state_dict": STATE},
    "in a list": {"models": [STATE], "ema": None},
    "in a tuple": (STATE, 17),
    "lightning": {"state_dict": STATE, "optimizer_states": [ADAM], "callbacks": {"EMA": {"weights": OTHER}}},
    "an optimizer by names": {"model": STATE, "optim": {f"state.{n}.exp_avg": t for n, t in STATE.items()}},
    "a loss": {"model": STATE, "criterion": {"head.weight": torch.ones(3)}},
}


@pytest.mark.parametrize("what", list(WRAPPED))
def test_weights_are_found_at_any_depth(what: str, tmp_path: Path) -> None:
    checkpoint = _load(tmp_path, WRAPPED[what])
    assert_same_tensors(checkpoint.params, PARAMS)
    assert any("read the weights under" in note for note in checkpoint.provenance.notes)


def test_a_dict_within_itself_ends(tmp_path: Path) -> None:
    circle: dict[str, Any] = {"model": STATE}
    circle["self"] = circle
    assert_same_tensors(_load(tmp_path, circle).params, PARAMS)


def test_head_and_body_may_be_dicts_side_by_side(tmp_path: Path) -> None:
    body = {name: tensor for name, tensor in STATE.items() if not name.startswith("head.")}
    layer = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(CONFIG.embed_dim, 7))
    checkpoint = _load(tmp_path, {"backbone": body, "classifier": layer.state_dict(), "epoch": 3})
    assert_same_tensors({n: a for n, a in checkpoint.params.items() if not n.startswith("head.")},
                        {n: PARAMS[n] for n in body})  # fmt: skip
    np.testing.assert_array_equal(checkpoint.params["head.weight"], layer[1].weight.detach().numpy())


KEYS = {
    "outer.model": {"outer": {"model": OTHER, "ema": STATE}},
    "outer": {"outer": {"deep": {"model": OTHER}}, "ema": {"model": STATE}},
    "teacher": {"model": {f"{who}.backbone.{n}": t for who, of in (("student", STATE), ("teacher", OTHER))
                          for n, t in of.items()}},
    "model.teacher": {"model": {f"{who}.{n}": t for who, of in (("student", STATE), ("teacher", OTHER))
                                for n, t in of.items()}},
    "models.1": {"models": [STATE, OTHER]},
    "a.b": {"a.b": OTHER, "a": STATE},
    "callbacks.EMA": {"state_dict": STATE, "callbacks": {"EMA": {"weights": OTHER}}},
}  # fmt: skip


@pytest.mark.parametrize("key", list(KEYS))
def test_a_key_leads_to_weights_at_any_depth(key: str, tmp_path: Path) -> None:
    checkpoint = _load(tmp_path, KEYS[key], weights_key=key)
    assert_same_tensors(checkpoint.params, {name: array + 1 for name, array in PARAMS.items()})


def test_several_sets_at_one_depth_are_a_choice_with_their_whole_keys(tmp_path: Path) -> None:
    with pytest.raises(VitportError, match=r"choose one of outer\.model, outer\.ema"):
        _load(tmp_path, {"outer": {"model": STATE, "ema": OTHER}})
    with pytest.raises(VitportError, match=r"no weights under 'outer\.mdl': choose one of outer\.model, outer\.ema"):
        _load(tmp_path, {"outer": {"model": STATE, "ema": OTHER}}, weights_key="outer.mdl")


def test_a_key_that_does_not_apply_is_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    with pytest.raises(VitportError, match=r"no weights under 'model'.*no prefix at all"):
        conversion.load(tmp_path / "w.safetensors", model=CONFIG, weights_key="model")
    with pytest.raises(VitportError, match="no weights under 'ema'"):
        _load(tmp_path, STATE, weights_key="ema")
    np.savez(tmp_path / "w.npz", **PARAMS)
    with pytest.raises(VitportError, match="no weights under 'ema'"):
        conversion.load(tmp_path / "w.npz", model=CONFIG, weights_key="ema")
    two = {f"{who}.{name}": t.contiguous() for who in ("net", "ema") for name, t in STATE.items()}
    save_file({name: t + name.startswith("ema") for name, t in two.items()}, tmp_path / "two.safetensors")
    chosen = conversion.load(tmp_path / "two.safetensors", model=CONFIG, weights_key="ema")
    assert_same_tensors(chosen.params, {name: array + 1 for name, array in PARAMS.items()})
