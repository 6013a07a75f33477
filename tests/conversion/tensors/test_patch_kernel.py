"""Resizing the patch embedding's kernel. Oracles, in float64: torch's bilinear interpolation, and its least squares."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from conversion.tensors.patch_kernel import resize_patch_kernel
from vit_spec import VitportError

SIZES = [(16, 14), (14, 16), (16, 32), (16, 8), (4, 5), (5, 4), (3, 1), (1, 3), (7, 10)]


def _kernel(patch: int) -> np.ndarray:
    return np.random.default_rng(patch).standard_normal((5, 3, patch, patch))


def _resized(patches: torch.Tensor, size: int) -> torch.Tensor:
    """(n, C, P, P) -> (n, C, size, size)."""
    return torch.nn.functional.interpolate(patches, (size, size), mode="bilinear", antialias=False)


def _resize_matrix(old: int, new: int) -> np.ndarray:
    """B: (new², old²), column by column what interpolation makes of a patch with a single bright pixel."""
    basis = torch.eye(old * old, dtype=torch.float64).reshape(-1, 1, old, old)
    return _resized(basis, new).reshape(old * old, new * new).T.numpy()


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_the_new_kernel_is_the_least_squares_answer(old: int, new: int) -> None:
    """Solved for height and width at once, as equation 4 of FlexiViT says it: minimise |Bᵀ w' - w|, then |w'|.

    Measured: 1e-14 on kernels of order 1 and condition numbers up to 20.
    """
    kernel = _kernel(old)
    answer, *_ = np.linalg.lstsq(_resize_matrix(old, new).T, kernel.reshape(-1, old * old).T)
    expected = answer.T.reshape(5, 3, new, new)
    np.testing.assert_allclose(resize_patch_kernel(kernel, new), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), [sizes for sizes in SIZES if sizes[1] > sizes[0]])
def test_larger_patches_answer_as_the_smaller_ones_did(old: int, new: int) -> None:
    """Oracle: the old kernel on the patch before torch resized it. Measured: 3e-14 on answers of order 10."""
    kernel = torch.tensor(_kernel(old))
    patches = torch.tensor(np.random.default_rng(1).standard_normal((20, 3, old, old)))
    expected = torch.nn.functional.conv2d(patches, kernel)
    actual = torch.nn.functional.conv2d(_resized(patches, new), torch.tensor(resize_patch_kernel(kernel.numpy(), new)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def test_no_other_kernel_answers_better_on_average() -> None:
    """Smaller patches lose pixels; any step away from the new kernel makes the mean square error larger."""
    kernel, new = _kernel(16), resize_patch_kernel(_kernel(16), 12)
    matrix = _resize_matrix(16, 12)

    def error(candidate: np.ndarray) -> float:
        return float(((matrix.T @ candidate.reshape(-1, 144).T - kernel.reshape(-1, 256).T) ** 2).sum())

    steps = np.random.default_rng(2).standard_normal((20, *new.shape)) * 1e-3
    assert all(error(new + step) > error(new) for step in steps)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_the_dtype_is_kept_and_the_arithmetic_is_in_float64(dtype) -> None:
    kernel = _kernel(6).astype(dtype)
    resized = resize_patch_kernel(kernel, 7)
    assert resized.dtype == dtype
    assert (resized == resize_patch_kernel(kernel.astype(np.float64), 7).astype(dtype)).all()


def test_no_patch_is_smaller_than_a_pixel() -> None:
    with pytest.raises(VitportError, match="patch_size=0 is too small"):
        resize_patch_kernel(_kernel(4), 0)
