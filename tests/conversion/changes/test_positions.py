"""Other layouts of the position table. Oracle: the model's float64 outputs before the change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vit_torch
from conversion import Checkpoint, with_positions
from conversion.tensors.check import check_complete
from tests.random_weights import random_images, random_params
from vit_spec import ViTConfig, VitportError

BASE = ViTConfig(
    image_size=(12, 20), patch_size=4, num_classes=7, embed_dim=24, depth=2, num_heads=3, mlp_hidden_dim=41
)
MODELS = {
    "class token": {},
    "distilled": {"distilled": True},
    "registers": {"register_tokens": 3},
    "all": {"distilled": True, "register_tokens": 2},
    "no prefix": {"class_token": False, "pool": "avg"},
    "registers alone": {"class_token": False, "pool": "avg", "register_tokens": 2},
}
LAYOUTS = ("prefix", "patch", "all")


@torch.no_grad()
def _outputs(checkpoint: Checkpoint) -> torch.Tensor:
    model = vit_torch.create_model(weights=checkpoint, dtype=torch.float64).eval()
    return model(torch.tensor(random_images(checkpoint.config, 2, seed=3)))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize("after", ["prefix", "patch"])
def test_the_outputs_stay(model, before, after) -> None:
    """Measured: at most 1e-15 on outputs of order 1, where zeros are added or a sum is done beforehand."""
    config = BASE.replace(pos_embed=before, **MODELS[model])
    old = Checkpoint.of(config, random_params(config, seed=1))
    new = with_positions(old, after)
    assert new.config == config.replace(pos_embed=after)
    check_complete(new.params.shapes, new.config)
    expected = _outputs(old)
    assert (_outputs(new) - expected).abs().max() <= 1e-12 * expected.abs().max()
    notes = new.provenance.notes
    assert notes == () if before == after else notes[0].startswith(f"changed: position table {after} in place of")


def test_what_is_lost_is_told() -> None:
    config = BASE.replace(distilled=True, register_tokens=2, pos_embed="all")
    checkpoint = Checkpoint.of(config, random_params(config, seed=1))
    folded = with_positions(checkpoint, "patch")
    assert folded.provenance.notes[0].endswith("; added the rows of cls_token, dist_token, reg_token to the tokens")
    assert (
        with_positions(checkpoint, "prefix").provenance.notes[0].endswith("; added the rows of reg_token to the tokens")
    )
    assert with_positions(folded, "prefix").provenance.notes[1].endswith("; rows of zeros before it: 2")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_dtypes_are_kept_and_a_row_of_zeros_changes_no_bit(dtype) -> None:
    """There: zeros before the table. Back: zeros added to the token. Oracle: the tensors that went in."""
    config = BASE.replace(pos_embed="patch")
    params = random_params(config, seed=1, dtype=dtype)
    back = with_positions(with_positions(Checkpoint.of(config, params), "prefix"), "patch")
    for name, array in params.items():
        assert back.params[name].tobytes() == array.tobytes(), name
        assert back.params[name].dtype == dtype


def test_keep_is_the_checkpoint_itself() -> None:
    checkpoint = Checkpoint.of(BASE, random_params(BASE, seed=1))
    assert with_positions(checkpoint, "keep") is checkpoint
    assert with_positions(checkpoint, "prefix") is checkpoint


@pytest.mark.parametrize(
    ("config", "layout", "words"),
    [
        (BASE.replace(pos_embed="none"), "patch", "no position table to lay out as 'patch'"),
        (BASE, "all", "choose one of keep, prefix, patch"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(config, layout, words) -> None:
    with pytest.raises(VitportError, match=words):
        with_positions(Checkpoint.of(config, random_params(config, seed=1)), layout)
