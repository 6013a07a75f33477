"""The carried Swin Transformer reads digits, in both frameworks. Oracle: scikit-learn's labels of digits it was not
trained on. `vitport train --preset swin_digits` wrote it, and `vitport convert --to timm`."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors import safe_open

import vit_cli
from conversion.images.image import normalize
from tests.vit_jax.models import jax_model
from tests.vit_torch.models import torch_model
from vit_cli.main import main
from vit_jax.training.data.images import evaluation_pixels
from vit_jax.training.data.sources.digits import open_digits
from vit_spec import Preprocessing, SwinConfig, config_from_dict

WEIGHTS = Path(vit_cli.__file__).parent / "assets" / "digits_swin.safetensors"


@pytest.fixture(scope="module")
def record() -> dict:
    with safe_open(WEIGHTS, "np") as file:
        return json.loads(file.metadata()["vitport"])


@pytest.fixture(scope="module")
def params() -> dict[str, np.ndarray]:
    with safe_open(WEIGHTS, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it cannot be iterated over


@pytest.fixture(scope="module")
def held_out(record) -> tuple[np.ndarray, np.ndarray]:
    """The 360 digits as the model takes them, (360, 16, 16, 1), and their labels."""
    digits, preprocessing = open_digits("validation"), Preprocessing.from_dict(record["preprocessing"])
    pixels = [evaluation_pixels(digits[at], preprocessing) for at in range(len(digits))]
    return np.stack([normalize(image, preprocessing) for image in pixels]).astype(np.float32), digits.labels


def test_both_frameworks_read_the_held_out_digits(record, params, held_out):
    """98.9 % measured; 96 % promised."""
    images, labels = held_out
    config = config_from_dict(record["config"])
    assert isinstance(config, SwinConfig)
    with torch.no_grad():
        in_torch = torch_model(config, params, torch.float32).eval()(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    model = jax_model(config, params, jnp.float32)
    model.eval()
    in_jax = np.asarray(nnx.jit(model)(images))
    assert (in_torch.argmax(1) == labels).mean() >= 0.96
    np.testing.assert_allclose(in_jax, in_torch, rtol=0, atol=2e-5)  # logits up to 4.9; measured 3.8e-6


def test_the_file_is_small_and_names_its_classes(record):
    assert WEIGHTS.stat().st_size < 300_000
    assert record["labels"] == list("0123456789")


@pytest.mark.slow
def test_the_preset_trains_such_a_model_anew(tmp_path):
    """Two minutes on two cores."""
    assert main(["train", "--preset", "swin_digits", "--workdir", str(tmp_path / "run")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("accuracy", 0) for line in lines) >= 0.96
