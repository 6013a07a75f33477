"""The script for a GPU, run on a CPU at sizes that measure nothing."""

from __future__ import annotations

import jax
import pytest

from benchmarks import gpu
from benchmarks.measure import Measured
from vit_spec import VitportError


def test_attention_agrees_and_is_timed_without_a_gpu(capsys) -> None:
    """XLA's, ours and PyTorch's, in bfloat16; what is not there is said."""
    assert gpu.main(("gpu-attention",), smoke=True) == 0
    told = capsys.readouterr().out
    assert "ours, written out: answers within" in told
    assert "cuDNN is left out: cuDNN is on NVIDIA GPUs alone" in told
    assert "| backward, PyTorch's SDPA |" in told


@pytest.mark.slow
def test_everything_runs_without_a_gpu(capsys) -> None:
    """A minute on an idle machine of two cores."""
    assert gpu.main(smoke=True) == 0
    told = capsys.readouterr().out
    for kind in ("float32", "TensorFloat-32", "bfloat16"):
        assert f"JAX, {kind}: answers within" in told
    assert "## Training the digits" in told
    assert "## ViT-L/16 in bfloat16" in told


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told() -> None:
    with pytest.raises(VitportError, match="JAX sees no GPU here"):
        gpu.gpu()


def test_utilisation_is_operations_over_the_peak() -> None:
    """100 images per second of 2 TFLOP each are 200 of 1,000 TFLOP/s."""
    found = gpu.utilisation("training", {"ours": Measured("ours", "images/s", (100.0,))}, 2e12, 1e15)
    assert [(each.name, each.ratio.median) for each in found] == [("MFU, training, ours", pytest.approx(0.2))]
    assert gpu.utilisation("training", {"ours": Measured("ours", "images/s", (100.0,))}, 2e12, None) == []
