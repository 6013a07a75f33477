"""Weights read at an image size, with options that several files share. Oracle: the checkpoint that was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import conversion
from conversion.load_sized import load_sized
from tests.random_weights import random_params
from tests.small_configs import BASE
from vit_spec import VitportError


def test_a_key_is_for_the_files_that_hold_several_sets(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    params = random_params(BASE, 0, np.float32)
    conversion.save(conversion.Checkpoint.of(BASE, params), path, format="timm")
    with pytest.raises(VitportError, match="no weights under 'ema'"):
        load_sized(str(path), weights_key="ema")
    read = load_sized(str(path), weights_key="ema", several=True)
    assert read.config == BASE
    assert all(np.array_equal(read.params[name], array) for name, array in params.items())
    larger = load_sized(str(path), (32, 48))
    assert larger.config.image_size == (32, 48)
