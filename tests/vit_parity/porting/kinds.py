"""Mistakes by kind of layer: each is planted in every layer of the kind that a pair of models has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.vit_parity.porting.pairs.pair import Planted, PortedModel, at, attributes, replaced, weights
from vit_parity.porting.stages import ROOT

Change = Callable[[Any], None]


@dataclass(frozen=True)
class Kind:
    """A mistake that a layer of a class may have."""

    name: str
    of: type
    plant: Callable[[str], Change]
    """From the layer's path to the change."""
    cause: str | None
    where: Callable[[Any], bool] = lambda _: True
    """Whether it changes anything in this layer."""


def values(function: Callable[[Any], Any], *names: str) -> Callable[[str], Change]:
    return lambda path: weights(path, function, *names)


def setting(**given: Any) -> Callable[[str], Change]:
    return lambda path: attributes(path, **given)


def other(make: Callable[[Any], Any]) -> Callable[[str], Change]:
    return lambda path: replaced(path, make)


def has_bias(layer: Any) -> bool:
    return layer.bias is not None


def int8(kernel: jax.Array) -> jax.Array:
    """To the nearest of 255 levels, each output by itself."""
    step = jnp.abs(kernel).max(tuple(range(kernel.ndim - 1)), keepdims=True) / 127
    return jnp.round(kernel / step) * step


def block_int8(kernel: jax.Array) -> jax.Array:
    """To the nearest of 255 levels, eight neighbouring numbers together."""
    flat = kernel.reshape(-1, 8) if kernel.size % 8 == 0 else kernel.reshape(1, -1)
    step = jnp.abs(flat).max(1, keepdims=True) / 127
    return (jnp.round(flat / step) * step).reshape(kernel.shape)


def halves(axis: int) -> Callable[[jax.Array], jax.Array]:
    return lambda x: jnp.concatenate(jnp.split(x, 2, axis)[::-1], axis)


def coarse(dtype: Any) -> Callable[[jax.Array], jax.Array]:
    return lambda x: x.astype(dtype).astype(x.dtype)


class Other(nnx.Module):
    """A layer's weights in another formula."""

    def __init__(self, layer: Any, formula: Callable[[Any, jax.Array], jax.Array]) -> None:
        self.formula, self.epsilon = formula, layer.epsilon
        for name in ("scale", "bias", "mean", "var"):
            setattr(self, name, getattr(layer, name, None))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.formula(self, x)


def formula(function: Callable[[Any, jax.Array], jax.Array]) -> Callable[[str], Change]:
    """The path stays, and what stands there computes something else."""
    return other(lambda layer: Other(layer, function))


def in_bfloat16(path: str) -> Change:
    """The layer computes in bfloat16, and its result goes on in float32."""

    def change(model: Any) -> None:
        layer = at(model, path)
        layer.dtype, own = jnp.bfloat16, type(layer)
        layer.__class__ = type(
            own.__name__, (own,), {"__call__": lambda self, x: own.__call__(self, x).astype(x.dtype)}
        )

    return change


def affine(layer: Any, x: jax.Array) -> jax.Array:
    x = x if layer.scale is None else x * layer.scale[...]
    return x if layer.bias is None else x + layer.bias[...]


def centred(x: jax.Array, axis: Any = -1) -> jax.Array:
    return x - x.mean(axis, keepdims=True)


def by_sample(layer: Any, x: jax.Array) -> jax.Array:
    """The variance of n - 1, as numpy's and PyTorch's std."""
    return affine(layer, centred(x) / jnp.sqrt(x.var(-1, keepdims=True, ddof=1) + layer.epsilon))


def by_rms(layer: Any, x: jax.Array) -> jax.Array:
    return affine(layer, x / jnp.sqrt((x**2).mean(-1, keepdims=True) + layer.epsilon))


def beside_root(layer: Any, x: jax.Array) -> jax.Array:
    return affine(layer, centred(x) / (jnp.sqrt(x.var(-1, keepdims=True)) + layer.epsilon))


def minus_mean(layer: Any, x: jax.Array) -> jax.Array:
    return affine(layer, centred(x) / jnp.sqrt(x.var(-1, keepdims=True) + layer.epsilon))


def by_variance(layer: Any, x: jax.Array) -> jax.Array:
    return affine(layer, (x - layer.mean[...]) / (layer.var[...] + layer.epsilon))


def over(groups: Callable[[int], int], *, dealt: bool = False) -> Callable[[Any, jax.Array], jax.Array]:
    """A group norm of another number of groups, or of channels that are dealt to groups one by one."""

    def computed(layer: Any, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        count = groups(channels)
        shape = (channels // count, count) if dealt else (count, channels // count)
        cut, axes = x.reshape(*x.shape[:-1], *shape), (*range(1, x.ndim - 1), x.ndim if not dealt else x.ndim - 1)
        cut = centred(cut, axes) / jnp.sqrt(cut.var(axes, keepdims=True) + layer.epsilon)
        return affine(layer, cut.reshape(x.shape))

    return computed


TURNED = "has the halves of its input features in the order (1, 0)"
KINDS: tuple[Kind, ...] = (
    Kind("no bias", nnx.Linear, values(jnp.zeros_like, "bias"), "leaves out bias", has_bias),
    Kind("bias twice", nnx.Linear, values(lambda x: 2 * x, "bias"), "adds bias twice", has_bias),
    Kind("halves of the input", nnx.Linear, values(halves(0), "kernel"), TURNED),
    Kind("transposed", nnx.Linear, values(jnp.transpose, "kernel"), "reads its matrix transposed",
         lambda it: it.in_features == it.out_features),
    Kind("reshaped", nnx.Linear, values(lambda x: x.T.reshape(x.shape), "kernel"),
         "reads its matrix in another order (reshaped, not transposed)", lambda it: it.in_features != it.out_features),
    Kind("rows reversed", nnx.Linear, values(lambda x: x[::-1], "kernel"), "has the rows of its matrix reversed"),
    Kind("outputs rolled", nnx.Linear, values(lambda x: jnp.roll(x, 3, -1), "kernel"), None, has_bias),
    Kind("block-int8", nnx.Linear, values(block_int8, "kernel"), None),
    Kind("int8", nnx.Linear, values(int8, "kernel"), None),
    Kind("kernel in bfloat16", nnx.Linear, values(coarse(jnp.bfloat16), "kernel"), "rounds its weights to bfloat16"),
    Kind("product in bfloat16", nnx.Linear, in_bfloat16, "computes in bfloat16"),
    Kind("epsilon 1e-3", nnx.LayerNorm, setting(epsilon=1e-3), "uses epsilon 0.001"),
    Kind("epsilon 1e-4", nnx.LayerNorm, setting(epsilon=1e-4), "uses epsilon 0.0001"),
    Kind("no bias", nnx.LayerNorm, values(jnp.zeros_like, "bias"), "leaves out the bias", has_bias),
    Kind("no scale", nnx.LayerNorm, values(jnp.ones_like, "scale"), "leaves out the scale", has_bias),
    Kind("scale and 1", nnx.LayerNorm, values(lambda x: 1 + x, "scale"), "adds 1 to the scale", has_bias),
    Kind("scale in halves", nnx.LayerNorm, values(halves(0), "scale"), None, has_bias),
    Kind("variance of n - 1", nnx.LayerNorm, formula(by_sample), "has the variance of n - 1", has_bias),
    Kind("mean stays", nnx.LayerNorm, formula(by_rms), "does not subtract the mean", has_bias),
    Kind("epsilon 1e-3", nnx.RMSNorm, setting(epsilon=1e-3), "uses epsilon 0.001"),
    Kind("epsilon 1e-5", nnx.RMSNorm, setting(epsilon=1e-5), "uses epsilon 1e-05"),
    Kind("no scale", nnx.RMSNorm, values(jnp.ones_like, "scale"), "leaves out the scale"),
    Kind("scale and 1", nnx.RMSNorm, values(lambda x: 1 + x, "scale"), "adds 1 to the scale"),
    Kind("mean subtracted", nnx.RMSNorm, formula(minus_mean), "subtracts the mean"),
    Kind("scale rolled", nnx.RMSNorm, values(lambda x: jnp.roll(x, 1), "scale"), None),
    Kind("epsilon 1e-3", nnx.BatchNorm, setting(epsilon=1e-3), "uses epsilon 0.001"),
    Kind("training mode", nnx.BatchNorm, setting(use_running_average=False),
         "uses the statistics of the batch, as in training mode"),
    Kind("no bias", nnx.BatchNorm, values(jnp.zeros_like, "bias"), "leaves out the bias"),
    Kind("no scale", nnx.BatchNorm, values(jnp.ones_like, "scale"), "leaves out the scale"),
    Kind("fresh mean", nnx.BatchNorm, values(jnp.zeros_like, "mean"), "has the mean 0 of a fresh layer"),
    Kind("fresh variance", nnx.BatchNorm, values(jnp.ones_like, "var"), "has the variance 1 of a fresh layer"),
    Kind("variance for deviation", nnx.BatchNorm, formula(by_variance),
         "takes the variance for the standard deviation"),
    Kind("mean rolled", nnx.BatchNorm, values(lambda x: jnp.roll(x, 1), "mean"), None),
    Kind("epsilon 1e-3", nnx.GroupNorm, setting(epsilon=1e-3), "uses epsilon 0.001"),
    Kind("epsilon 1e-6", nnx.GroupNorm, setting(epsilon=1e-6), "uses epsilon 1e-06"),
    Kind("no bias", nnx.GroupNorm, values(jnp.zeros_like, "bias"), "leaves out the bias"),
    Kind("no scale", nnx.GroupNorm, values(jnp.ones_like, "scale"), "leaves out the scale"),
    Kind("two groups", nnx.GroupNorm, formula(over(lambda _: 2)), "has 2 groups instead of 4"),
    Kind("one group", nnx.GroupNorm, formula(over(lambda _: 1)), "has 1 group instead of 4"),
    Kind("a group for each channel", nnx.GroupNorm, formula(over(lambda size: size)),
         "normalizes each channel by itself"),
    Kind("channels dealt", nnx.GroupNorm, formula(over(lambda _: 4, dealt=True)),
         "deals channels to groups one by one instead of in runs"),
    Kind("flipped", nnx.Conv, values(lambda x: x[::-1, ::-1], "kernel"), "flips its kernel",
         lambda it: it.kernel_size[0] > 1),
    Kind("rows and columns", nnx.Conv, values(lambda x: x.swapaxes(0, 1), "kernel"),
         "swaps rows and columns of its kernel", lambda it: it.kernel_size[0] > 1),
    Kind("no bias", nnx.Conv, values(jnp.zeros_like, "bias"), "leaves out bias", has_bias),
    Kind("bias twice", nnx.Conv, values(lambda x: 2 * x, "bias"), "adds bias twice", has_bias),
    Kind("input channels swapped", nnx.Conv, values(lambda x: x[:, :, ::-1], "kernel"),
         "has its input channels in reverse", lambda it: it.feature_group_count == 1),
    Kind("block-int8", nnx.Conv, values(block_int8, "kernel"), None),
    Kind("product in bfloat16", nnx.Conv, in_bfloat16, "computes in bfloat16"),
    Kind("one row further", nnx.Embed, values(lambda x: jnp.roll(x, -1, 0), "embedding"),
         "looks up the row behind each"),
    Kind("one row before", nnx.Embed, values(lambda x: jnp.roll(x, 1, 0), "embedding"), "looks up the row before each"),
    Kind("times the root of D", nnx.Embed, values(lambda x: x * np.sqrt(x.shape[-1]), "embedding"),
         "multiplies by sqrt(D)"),
    Kind("in bfloat16", nnx.Embed, values(coarse(jnp.bfloat16), "embedding"), "rounds its weights to bfloat16"),
    Kind("channels rolled", nnx.Embed, values(lambda x: jnp.roll(x, 5, -1), "embedding"), None),
)  # fmt: skip


def planted(pair: PortedModel) -> Iterator[Planted]:
    """The mistakes of a pair: each kind in every second layer that may have it, and those of its own."""
    modules = {".".join(map(str, path)) or ROOT: it for path, it in nnx.iter_modules(pair.port(pair.model))}
    for number, kind in enumerate(KINDS):
        fitting = [path for path in pair.layers if type(modules[path]) is kind.of and kind.where(modules[path])]
        for path in fitting[number % 2 if len(fitting) > 1 else 0 :: 2]:
            yield Planted(f"{kind.name} in {path}", kind.plant(path), pair.layers[path], kind.cause)
    yield from pair.own()
