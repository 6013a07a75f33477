"""Attention by kernels, for every number of tokens.

A library's kernel takes certain lengths alone. Tokens are padded to the next of them; padded keys are masked, padded
queries are cut off, and so are their gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float

from vit_jax.layers.xla.axes import TENSOR, image_axes
from vit_jax.layers.xla.short_attention import attend_packed, fits

Tokens = Float[Array, "B h N d"]
Kernel = Callable[[Tokens, Tokens, Tokens, Float[Array, "#B #h N N"] | None, float], Tokens]
"""Queries, keys, values, bias and scale to heads, (B, h, N, d)."""
_BLOCK = 128
"""Tokens in a block of the TPU kernel at least."""
_BLOCKS = (512, 384, 256, _BLOCK)


def cudnn(
    q: Float[Array, "B h N d"],
    k: Float[Array, "B h N d"],
    v: Float[Array, "B h N d"],
    bias: Float[Array, "#B #h N N"] | None,
    scale: float,
) -> Float[Array, "B h N d"]:
    """cuDNN's, which trains on even lengths alone."""
    return padded(_cudnn, 2, q, k, v, bias, scale)


def flash(
    q: Float[Array, "B h N d"],
    k: Float[Array, "B h N d"],
    v: Float[Array, "B h N d"],
    bias: Float[Array, "#B #h N N"] | None,
    scale: float,
) -> Float[Array, "B h N d"]:
    """For TPUs: :mod:`~vit_jax.layers.xla.short_attention` without a bias, if an image's tokens fit the memory on the
    chip; else JAX's (``jax.experimental.pallas.ops.tpu.flash_attention``), on multiples of 128 tokens.

    The compiler does not divide such kernels: within a mesh in context each device runs it on its images and heads.
    """
    run = partial(_flash, scale=scale)
    mesh = jax.sharding.get_abstract_mesh()
    free = set(mesh.axis_names) - set(mesh.manual_axes)
    if mesh.size <= 1 or not free:
        return run(q, k, v, bias)
    divide = partial(jax.shard_map, axis_names=free, check_vma=False)
    own = PartitionSpec(image_axes() or None, TENSOR)
    if bias is None:
        return divide(lambda q, k, v: run(q, k, v, None), in_specs=(own,) * 3, out_specs=own)(q, k, v)
    spread = PartitionSpec(*(axis if size > 1 else None for axis, size in zip(own, bias.shape, strict=False)))
    return divide(run, in_specs=(own, own, own, spread), out_specs=own)(q, k, v, bias)


def padded(
    kernel: Callable[..., Tokens],
    multiple: int,
    q: Float[Array, "B h N d"],
    k: Float[Array, "B h N d"],
    v: Float[Array, "B h N d"],
    bias: Float[Array, "#B #h N N"] | None,
    scale: float,
) -> Float[Array, "B h N d"]:
    """A kernel's attention among N tokens that are padded to a multiple.

    Args:
        kernel: called with queries, keys, values, bias, scale and N; keys from N on do not count.
        multiple: of which the lengths are that the kernel takes.
        q, k, v, bias, scale: as :data:`Kernel` takes them.
    """
    N = q.shape[2]
    more = -N % multiple
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0))) for x in (q, k, v))
    if bias is not None:
        bias = jnp.pad(bias, ((0, 0), (0, 0), (0, more), (0, more)))
    return kernel(q, k, v, bias, scale, N)[:, :, :N]


def _cudnn(q: Array, k: Array, v: Array, bias: Array | None, scale: float, tokens: int) -> Array:
    lengths: dict[str, Array] = {}
    if tokens != q.shape[2]:
        # Computed from the queries: under jax.vmap JAX wants lengths that are mapped as they are.
        zero = 0 * (jax.lax.stop_gradient(q[:, 0, 0, 0]) == 0).astype(jnp.int32)  # (B,)
        lengths = {"query_seq_lengths": zero + q.shape[2], "key_value_seq_lengths": zero + tokens}
    parts = [x.swapaxes(1, 2) for x in (q, k, v)]  # (B, N, h, d) each
    heads = jax.nn.dot_product_attention(*parts, bias=bias, scale=scale, implementation="cudnn", **lengths)
    return heads.swapaxes(1, 2)


def _flash(q: Array, k: Array, v: Array, bias: Array | None, *, scale: float) -> Array:
    B, h, N, d = q.shape
    if bias is None and fits(N, h * d, q.dtype):
        # XLA finds that nothing is moved, if one linear layer gave all three and nothing changed them since.
        qkv = jnp.stack([q, k, v]).transpose(1, 3, 0, 2, 4).reshape(B, N, 3 * h * d)
        heads: Array = attend_packed(qkv, h, scale)  # (B, N, h d)
        return heads.reshape(B, N, h, d).swapaxes(1, 2)
    return padded(_flash_by_blocks, _BLOCK, q, k, v, bias, scale)


def _flash_by_blocks(q: Array, k: Array, v: Array, bias: Array | None, scale: float, tokens: int) -> Array:
    from jax.experimental.pallas.ops.tpu.flash_attention import BlockSizes, SegmentIds, flash_attention

    B, h, length, _ = q.shape
    segments = None
    if tokens != length:  # padding is a sequence of its own, which no token sees
        own = jnp.broadcast_to((jnp.arange(length) >= tokens).astype(jnp.int32), (B, length))
        segments = SegmentIds(own, own)
    if bias is not None:
        bias = jnp.broadcast_to(bias, (B, h, length, length))
        q, scale = q * scale, 1.0  # the kernel scales the sum of product and bias
    block = next(size for size in _BLOCKS if length % size == 0)
    sizes = BlockSizes(
        block_q=block, block_k_major=block, block_k=block, block_b=1,
        block_q_major_dkv=block, block_k_major_dkv=block, block_k_dkv=block, block_q_dkv=block,
        block_k_major_dq=block, block_k_dq=block, block_q_dq=block,
    )  # fmt: skip
    return flash_attention(q, k, v, bias, segments, sm_scale=scale, block_sizes=sizes)
