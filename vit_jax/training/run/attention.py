"""Which kernel computes attention in a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from vit_jax.layers.attention import ATTENTION
from vit_jax.layers.xla.short_attention import fits
from vit_jax.training.recipe.execution import AttentionKernel, AttentionKind, Precision
from vit_spec import BlockSizes, Config, VitportError, block_sizes

_LONG = 1024
"""Tokens from which on the TPU kernel that pads them to multiples of 128 is the faster one."""
_WIDEST = 128
"""Head width that both kernels take on every device that has them."""
_APART = 2.0**-5
"""Of the largest value, by which a kernel may differ from the written attention: eight roundings of bfloat16. Heads and
gradients are rounded once, and attention weights before their product; measured in Pallas's interpreter: 1.1."""


def choose_attention(asked: AttentionKind, model: Config, platform: str, precision: Precision) -> AttentionKernel:
    """The kernel of a run or of inference: the one that is asked for, or for ``auto`` the best for backend, dtype and
    tokens.

    Where every token attends to all, ``auto`` is cuDNN on NVIDIA GPUs in bfloat16. On TPUs it is flash in bfloat16
    where all tokens of an image fit the memory on the chip, and in any precision from 1,024 tokens on: see
    :func:`vit_jax.layers.xla.kernels.flash`, and docs/performance-notes.md for what the roofline says. Elsewhere it is
    the fused one.

    Args:
        asked: by name, or ``auto``.
        model: to be run.
        platform: of the devices: ``cpu``, ``gpu`` or ``tpu``.
        precision: of the computation.

    Raises:
        VitportError: for a kernel that the device, the precision or the model does not allow.
    """
    if asked == "auto":
        sizes = block_sizes(model)
        whole = all(each.keys == each.tokens for each in sizes)
        if whole and not _obstacles("cudnn", model, platform, precision):
            return "cudnn"
        short = precision == "bfloat16" and all(_is_short(each) for each in sizes)
        pays = whole and (short or min(each.tokens for each in sizes) >= _LONG)
        return "flash" if pays and not _obstacles("flash", model, platform, precision) else "fused"
    found = _obstacles(asked, model, platform, precision)
    if found:
        raise VitportError(f"attention={asked} {_NEEDS[asked]}; {', '.join(found)}: choose "
                           "auto or fused.")  # fmt: skip
    return asked


def check_kernel(kind: AttentionKernel, model: Config, precision: Precision) -> None:
    """Runs a kernel on this process's first device, forward and backward, beside the written attention in float32, on
    two images of the model's tokens and heads. No test can do this for every chip and version of its compiler.

    Raises:
        VitportError: if they differ by more than rounding.
    """
    if kind not in _NEEDS:
        return
    for sizes in block_sizes(model):
        shape = (2, sizes.heads, sizes.keys, sizes.head_width)
        tokens = jax.random.normal(jax.random.key(0), (4, *shape), jnp.dtype(precision))
        found = _heads_and_gradients(kind, tokens)
        with jax.default_matmul_precision("highest"):
            exact = _heads_and_gradients("explicit", tokens.astype(jnp.float32))
        apart = max(float(abs(a - b).max() / abs(b).max()) for a, b in zip(found, exact, strict=True))
        if not apart <= _APART:
            raise VitportError(
                f"attention={kind} does not give what the written attention does on this "
                f"{jax.devices()[0].device_kind} ({apart:.2g} of the largest value apart, {_APART:.2g} allowed): give "
                "attention=fused, and report it with what `vitport doctor` prints."
            )


def _heads_and_gradients(kind: AttentionKernel, tokens: Array) -> tuple[Array, ...]:
    """Heads (B, N, D), and the gradients of queries, keys and values by their sum with random weights."""
    q, k, v, weights = tokens
    scale = 2 * q.shape[-1] ** -0.5  # attention weights far from equal

    def heads(q: Array, k: Array, v: Array) -> Array:
        return ATTENTION[kind](q, k, v, scale, lambda weights: weights)

    def run(q: Array, k: Array, v: Array, weights: Array) -> tuple[Array, ...]:
        made, back = jax.vjp(heads, q, k, v)
        return tuple(each.astype(jnp.float32) for each in (made, *back(weights.reshape(made.shape))))

    return jax.jit(run)(q, k, v, weights)


def _is_short(sizes: BlockSizes) -> bool:
    """Whether the kernel takes the attention of whole images, in bfloat16."""
    return sizes.plain_attention and fits(sizes.tokens, sizes.width, "bfloat16")


_NEEDS = {
    "cudnn": "needs an NVIDIA GPU, bfloat16, head widths up to 128 that are multiples of 8, and no dropout of "
    "attention weights",
    "flash": "needs a TPU, head widths up to 128, and no dropout of attention weights",
}


def _obstacles(kind: AttentionKernel, model: Config, platform: str, precision: Precision) -> list[str]:
    if kind not in _NEEDS:
        return []
    device, multiple = {"cudnn": ("gpu", 8), "flash": ("tpu", 1)}[kind]
    widths = sorted({each.head_width for each in block_sizes(model)})
    obstacles = {
        f"the device is a {platform}": platform != device,
        f"precision is {precision}": kind == "cudnn" and precision != "bfloat16",
        **{f"the head width is {width}": width % multiple != 0 or width > _WIDEST for width in widths},
        f"attn_drop_rate is {model.attn_drop_rate}": model.attn_drop_rate > 0,
    }
    return [obstacle for obstacle, true in obstacles.items() if true]
