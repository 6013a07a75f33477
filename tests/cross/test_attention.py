"""A bias on the logits and a scale per head, in every form of attention: for relative positions and masks.

Oracles: ``torch.nn.functional.scaled_dot_product_attention`` with ``attn_mask`` in float64, and, as PyTorch's fused
form calls that function itself, the formula in numpy. Tolerances: 8 to 15 products of order 1 are summed in float64,
whose u is 1.1e-16; gradients, of order 10, pass three such sums. Measured 1.1e-15 for values, 4.3e-14 for gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import vit_jax.layers.attention
import vit_torch.layers.attention
from tests import numpy_reference

B, h, N, d = 2, 3, 15, 8
ATOL, GRADIENT_ATOL = 2e-14, 4e-13
RNG = np.random.default_rng(0)
QKV = RNG.standard_normal((3, B, h, N, d))
WINDOWS = np.where(np.arange(N)[:, None] // 5 == np.arange(N) // 5, 0.0, -np.inf)  # attends within thirds
BIASES = {
    "none": None,
    "per image": RNG.standard_normal((B, h, N, N)),
    "per head": RNG.standard_normal((1, h, N, N)),
    "per key": RNG.standard_normal((B, 1, 1, N)),
    "mask": np.broadcast_to(WINDOWS, (1, 1, N, N)),
    "mask and positions": WINDOWS + RNG.standard_normal((1, h, N, N)),
}
SCALES = {"number": 0.3, "per head": RNG.uniform(0.1, 0.9, (1, h, 1, 1))}

Results = dict[str, np.ndarray]
Form = Callable[[dict[str, np.ndarray], Any], Results]


def run_torch(attend: Callable[..., torch.Tensor], arrays: dict[str, np.ndarray], scale: Any) -> Results:
    """Heads, and the gradients of the sum of their cubes."""
    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    scale = scale if isinstance(scale, float) else torch.tensor(scale)
    qkv = (leaves[name] for name in "qkv")
    heads = attend(*qkv, scale, lambda weights: weights, **{"bias": leaves["bias"]} if "bias" in leaves else {})
    (heads**3).sum().backward()
    gradients = {name: np.asarray(leaf.grad) for name, leaf in leaves.items()}
    return {"heads": heads.detach().numpy()} | gradients


def run_jax(attend: Callable[..., jax.Array], arrays: dict[str, np.ndarray], scale: Any) -> Results:
    with jax.enable_x64(True):
        leaves = {name: jnp.asarray(array) for name, array in arrays.items()}
        scale = scale if isinstance(scale, float) else jnp.asarray(scale)

        def loss(leaves: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            heads = attend(*(leaves[name] for name in "qkv"), scale, lambda weights: weights, bias=leaves.get("bias"))
            return (heads**3).sum(), heads

        gradients, heads = jax.jit(jax.grad(loss, has_aux=True))(leaves)
        return {"heads": np.asarray(heads)} | {name: np.asarray(array) for name, array in gradients.items()}


def oracle(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: Any, drop: Any, bias: torch.Tensor | None = None
) -> torch.Tensor:
    del drop
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        heads = torch.nn.functional.scaled_dot_product_attention(q * scale, k, v, attn_mask=bias, scale=1.0)
    return heads.transpose(1, 2).flatten(2)


FORMS: dict[str, Form] = {
    "torch explicit": partial(run_torch, vit_torch.layers.attention.attend),
    "torch fused": partial(run_torch, vit_torch.layers.attention.attend_fused),
    "jax explicit": partial(run_jax, vit_jax.layers.attention.attend),
    "jax fused": partial(run_jax, vit_jax.layers.attention.attend_fused),
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("form", FORMS)
def test_bias_and_scale_act_on_the_logits(form: str, bias: str, scale: str) -> None:
    arrays = dict(zip("qkv", QKV, strict=True)) | ({} if BIASES[bias] is None else {"bias": BIASES[bias]})
    found, expected = (run(arrays, SCALES[scale]) for run in (FORMS[form], partial(run_torch, oracle)))
    assert list(expected) == ["heads", *arrays]
    for name, values in expected.items():
        atol = ATOL if name == "heads" else GRADIENT_ATOL
        np.testing.assert_allclose(found[name], values, rtol=0, atol=atol, err_msg=name)
    q, k, v = QKV
    logits = (q * SCALES[scale]) @ k.swapaxes(-2, -1) + (0.0 if BIASES[bias] is None else BIASES[bias])
    formula = (numpy_reference.softmax(logits) @ v).swapaxes(1, 2).reshape(B, N, h * d)
    np.testing.assert_allclose(found["heads"], formula, rtol=0, atol=ATOL)


@pytest.mark.parametrize("form", ["attend", "attend_fused"])
def test_a_bias_in_bfloat16_keeps_the_dtype(form: str) -> None:
    in_torch, in_jax = getattr(vit_torch.layers.attention, form), getattr(vit_jax.layers.attention, form)
    bias = np.asarray(BIASES["per head"])
    tensors = [torch.tensor(x, dtype=torch.bfloat16) for x in (*QKV, bias)]
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in (*QKV, bias)]
    ours = in_torch(*tensors[:3], 0.3, lambda weights: weights, tensors[3])
    theirs = in_jax(*arrays[:3], 0.3, lambda weights: weights, arrays[3])
    assert (ours.dtype, theirs.dtype) == (torch.bfloat16, jnp.bfloat16)
    # Logits, weights and heads of order 1 are each rounded to 2**-9 of themselves; measured 1.6e-2.
    np.testing.assert_allclose(ours.float().numpy(), np.asarray(theirs, np.float32), rtol=0, atol=2**-5)
