"""Attention as one TPU kernel for each image, where all of an image's tokens fit the memory on the chip.

The kernel reads queries, keys and values as their linear layer gives them, side by side, and writes heads side by side:
main memory holds neither arrays (B, h, N, d) nor attention weights (B, h, N, N), and no token is padded. The backward
pass reads the same array and computes the weights again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vit_jax.layers.xla.platform import platform

_MEMORY = 16 * 2**20
"""Bytes on the chip that a kernel has, whichever TPU it is."""
_TABLES = 6
"""Arrays (N, N) in float32 that the backward pass works on at a time."""
_ALONG_ROWS = (((1,), (1,)), ((), ()))
"""a @ b.T"""
_PLAIN = (((1,), (0,)), ((), ()))
"""a @ b"""
_ALONG_COLUMNS = (((0,), (0,)), ((), ()))
"""a.T @ b"""


def fits(tokens: int, width: int, dtype: DTypeLike) -> bool:
    """Whether the kernel takes images of so many tokens.

    Args:
        tokens: N.
        width: D, of all heads on a device together.
        dtype: of the tokens.
    """
    word = jnp.dtype(dtype).itemsize
    # Queries, keys, values and their gradients, and the heads' gradient, of this image and of the next.
    arrays = 2 * 7 * _up(tokens, 16) * _up(width, 128) * word
    return arrays + _TABLES * 4 * _up(tokens, 8) * _up(tokens, 128) <= _MEMORY


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def attend_packed(qkv: Float[Array, "B N 3*D"], heads: int, scale: float) -> Float[Array, "B N D"]:
    """``softmax(scale * q @ k.T) @ v`` of all heads, by the formula of
    :func:`vit_jax.layers.xla.attention.scaled_dot_product_attention` (Vaswani et al. 2017, section 3.2.1).

    Args:
        qkv: [queries, keys, values], each of them head by head.
        heads: h; D is a multiple of it.
        scale: factor on the logits.

    On a CPU it runs in Pallas's interpreter.
    """
    return _run(_forward, 2, qkv.shape[-1] // 3, heads, scale, qkv)


def _attend_forward(qkv: Array, heads: int, scale: float) -> tuple[Array, Array]:
    return attend_packed(qkv, heads, scale), qkv


def _attend_backward(heads: int, scale: float, qkv: Array, gradient: Array) -> tuple[Array]:
    return (_run(_backward, 5, qkv.shape[-1], heads, scale, qkv, gradient),)


attend_packed.defvjp(_attend_forward, _attend_backward)


def _forward(qkv: Any, out: Any, *, heads: int, scale: float) -> None:
    """One image: references to (N, 3 D) and to (N, D)."""
    for head in range(heads):
        own = _columns(out.shape[-1], heads, head)
        q, k, v = (qkv[:, part] for part in _parts(out.shape[-1], own))
        logits = scale * _product(q, k, _ALONG_ROWS)  # (queries, keys)
        powers = jnp.exp(logits - logits.max(axis=1, keepdims=True))
        values = _product(powers.astype(v.dtype), v, _PLAIN)
        out[:, own] = (values / powers.sum(axis=1, keepdims=True)).astype(out.dtype)


def _backward(qkv: Any, gradient: Any, out: Any, *, heads: int, scale: float) -> None:
    """One image: references to (N, 3 D), to (N, D) and to (N, 3 D).

    Weights are (keys, queries), so that of five products one alone has to turn an array (N, N).
    """
    for head in range(heads):
        own = _columns(gradient.shape[-1], heads, head)
        parts = _parts(gradient.shape[-1], own)
        q, k, v = (qkv[:, part] for part in parts)
        of_heads = gradient[:, own]
        logits = scale * _product(k, q, _ALONG_ROWS)
        powers = jnp.exp(logits - logits.max(axis=0, keepdims=True))
        weights = powers / powers.sum(axis=0, keepdims=True)
        of_weights = _product(v, of_heads, _ALONG_ROWS)
        of_logits = weights * (of_weights - (weights * of_weights).sum(axis=0, keepdims=True))
        of_logits = (scale * of_logits).astype(q.dtype)
        out[:, parts[0]] = _product(of_logits, k, _ALONG_COLUMNS).astype(out.dtype)
        out[:, parts[1]] = _product(of_logits, q, _PLAIN).astype(out.dtype)
        out[:, parts[2]] = _product(weights.astype(of_heads.dtype), of_heads, _PLAIN).astype(out.dtype)


def _columns(width: int, heads: int, head: int) -> slice:
    return slice(head * (width // heads), (head + 1) * (width // heads))


def _parts(width: int, own: slice) -> list[slice]:
    """Where a head's queries, keys and values are."""
    return [slice(part * width + own.start, part * width + own.stop) for part in range(3)]


def _product(left: Array, right: Array, axes: Any) -> Array:
    return jax.lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)


def _run(
    kernel: Callable[..., None], products: int, columns: int, heads: int, scale: float, *arrays: Array
) -> Float[Array, "B N columns"]:
    """A kernel on each image.

    Args:
        kernel: called with references to one image's arrays and result.
        products: of matrices, for each head.
        columns: of the result.
        heads, scale: passed on to the kernel.
        arrays: (B, N, …), the first of them queries, keys and values.
    """
    from jax.experimental import pallas
    from jax.experimental.pallas import tpu

    qkv = arrays[0]
    B, N, D = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    interpreted = platform() == "cpu"
    unit = 128 if interpreted else tpu.get_tpu_info().mxu_column_size
    # Matrix units multiply whole blocks of so many columns: of a head, and of an image's tokens.
    operations = products * 2 * _up(N, 8) * _up(N, unit) * _up(D // heads, unit)
    cost = pallas.CostEstimate(
        flops=B * heads * operations,
        transcendentals=B * heads * N * _up(N, 128),
        bytes_accessed=(sum(array.size for array in arrays) + B * N * columns) * qkv.dtype.itemsize,
    )
    return pallas.pallas_call(
        partial(kernel, heads=heads, scale=scale),
        grid=(B,),
        in_specs=[pallas.BlockSpec((None, *array.shape[1:]), lambda image: (image, 0, 0)) for array in arrays],
        out_specs=pallas.BlockSpec((None, N, columns), lambda image: (image, 0, 0)),
        out_shape=jax.ShapeDtypeStruct((B, N, columns), qkv.dtype),
        cost_estimate=cost,
        compiler_params=tpu.CompilerParams(dimension_semantics=("parallel",), vmem_limit_bytes=_MEMORY),
        interpret=interpreted,
    )(*arrays)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
