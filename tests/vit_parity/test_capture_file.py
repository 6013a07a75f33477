"""What is written comes back bit for bit; what is damaged is refused."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from vit_parity import Capture
from vit_parity.capture_file import is_capture, load_capture, save_capture
from vit_spec import VitportError


def capture() -> Capture:
    rng = np.random.default_rng(0)
    arrays = {
        "embed": rng.standard_normal((1, 3, 4)).astype(np.float32),
        "blocks.0.attn.softmax": rng.standard_normal((1, 2, 3, 3)).astype(ml_dtypes.bfloat16),
        "blocks.10": rng.standard_normal((1, 3, 4)).astype(np.float16),
        "blocks.2": rng.standard_normal((1, 3, 4)).swapaxes(1, 2),
    }
    return Capture("jax:weights", arrays, rng.standard_normal((1, 8, 8, 3)), {"framework": "jax", "dtype": "mixed"})


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_there_and_back_is_the_identity(tmp_path, ending):
    """Names, order, dtypes, bits, title, facts, images."""
    path = tmp_path / f"run.{ending}"
    save_capture(capture(), path)
    assert is_capture(path)
    found, expected = load_capture(path), capture()
    assert list(found.activations) == list(expected.activations)
    assert (found.title, found.facts) == (expected.title, expected.facts)
    np.testing.assert_array_equal(found.images, expected.images)
    for name, array in expected.activations.items():
        assert found.activations[name].dtype == array.dtype
        np.testing.assert_array_equal(found.activations[name], array)


def test_other_files_are_no_captures(tmp_path):
    """Weights, an archive of arrays, text, nothing."""
    save_file({"x": np.ones(1)}, tmp_path / "weights.safetensors")
    np.savez(tmp_path / "arrays.npz", x=np.ones(1))
    (tmp_path / "text.npz").write_text("words")
    for name in ("weights.safetensors", "arrays.npz", "text.npz", "nowhere.npz"):
        assert not is_capture(tmp_path / name)
        with pytest.raises(VitportError, match="capture"):
            load_capture(tmp_path / name)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_truncated_capture_is_refused_in_one_sentence(tmp_path, ending):
    path = tmp_path / f"run.{ending}"
    save_capture(capture(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VitportError):
        load_capture(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    for name in ("run.txt", "nowhere/run.npz"):
        with pytest.raises(VitportError):
            save_capture(capture(), tmp_path / name)
