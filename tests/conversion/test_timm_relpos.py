"""Biases of a network by relative position, in blocks that timm's own class does not have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import conversion
from tests.conversion.canaries import assert_same_tensors
from tests.random_weights import random_params
from tests.small_configs import BASE


def test_each_branch_keeps_its_own_biases(tmp_path: Path) -> None:
    """timm shares those of all blocks; a block of several attentions has no such place. Oracle: what was saved."""
    config = BASE.replace(block="branched", branches=2, relative_hidden_dim=5, pos_embed="none", image_size=(8, 12))
    params = random_params(config, 1, np.float32)
    conversion.save(conversion.Checkpoint.of(config, params), tmp_path / "w", format="timm-relpos", activation="keep")
    assert_same_tensors(conversion.load(tmp_path / "w").params, params)
