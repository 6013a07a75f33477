"""A checkpoint's model in one framework and dtype, and arrays on their way into and out of it.

Everything that runs a model here goes through this module, so JAX's 64-bit mode is switched on in one place.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from vit_spec.frameworks import require_torch

if TYPE_CHECKING:
    from conversion import Checkpoint
    from vit_jax import VisionModel as JaxModel
    from vit_torch import VisionModel as TorchModel

Framework = Literal["torch", "jax"]
Dtype = Literal["float64", "float32", "bfloat16", "float16"]
T = TypeVar("T")


def run_in(
    framework: Framework,
    checkpoint: Checkpoint,
    dtype: str,
    *,
    torch: Callable[[TorchModel], T],
    jax: Callable[[JaxModel], T],
) -> T:
    """Build the checkpoint's model in one framework and dtype, in evaluation mode, and call the function for it.

    Args:
        framework: which of the two runs.
        checkpoint: the weights.
        dtype: of the parameters and of the computation.
        torch: what to do with the PyTorch model.
        jax: what to do with the JAX model; float64 is available while it runs.

    Raises:
        VitportError: if the framework is not installed.
    """
    if framework == "torch":
        return torch(torch_model(checkpoint, dtype))
    with jax_dtype(dtype):
        return jax(jax_model(checkpoint, dtype))


def torch_model(checkpoint: Checkpoint, dtype: str = "float32", **changes: Any) -> TorchModel:
    """The PyTorch model in evaluation mode, parameters and computation in ``dtype``.

    Args:
        checkpoint: the weights.
        dtype: name of a float dtype.
        changes: options of ``vit_torch.create_model``.

    Raises:
        VitportError: if PyTorch is not installed.
    """
    require_torch("vit_parity")
    import torch

    import vit_torch

    return vit_torch.create_model(weights=checkpoint, dtype=getattr(torch, dtype), **changes).eval()


def jax_model(checkpoint: Checkpoint, dtype: str = "float32", **changes: Any) -> JaxModel:
    """The JAX model in evaluation mode, parameters and computation in ``dtype``; float64 needs :func:`jax_dtype`.

    Args:
        checkpoint: the weights.
        dtype: name of a float dtype.
        changes: options of ``vit_jax.create_model``.
    """
    import vit_jax

    model = vit_jax.create_model(weights=checkpoint, dtype=dtype, param_dtype=dtype, **changes)
    model.eval()
    return model


def jax_dtype(dtype: str) -> AbstractContextManager[None]:
    """JAX's 64-bit mode while a model of this dtype is built and run: on for float64 only."""
    import jax

    return jax.enable_x64(dtype == "float64")


def installed() -> tuple[Framework, ...]:
    """The frameworks that can be imported here."""
    names: tuple[Framework, ...] = ("torch", "jax")
    return tuple(name for name in names if importlib.util.find_spec(name) is not None)


def torch_images(images: np.ndarray, like: Any) -> Any:
    """Images (B, H, W, C) -> a tensor (B, C, H, W) with the dtype and device of ``like``."""
    import torch

    return torch.tensor(images).to(like).permute(0, 3, 1, 2)


def torch_array(tensor: Any) -> np.ndarray:
    """A tensor as a numpy array of the same dtype; torch does not export bfloat16 to numpy, so its bits are copied."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def torch_dtype_name(tensor: Any) -> str:
    """numpy's name of a tensor's dtype."""
    return str(tensor.dtype).removeprefix("torch.")


def jax_params(state: Any) -> dict[str, np.ndarray]:
    """An NNX state as canonical name -> array in PyTorch's axes."""
    from flax import nnx

    from conversion import from_flax

    flat = {"/".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(state)}
    return dict(from_flax(flat))
