"""The same function with zeros or ones for what a format always has: nothing is rounded, so it needs no option."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from conversion.changes.positions import with_positions
from conversion.checkpoint import Checkpoint
from conversion.tensors.table import Tensor, TensorTable
from vit_spec import Kind, ViTConfig, parameters

CannotHold = Callable[[ViTConfig], list[str]]


@dataclass(frozen=True)
class _Step:
    """One way to state the same function by another config."""

    configs: Callable[[ViTConfig], Iterator[ViTConfig]]
    """Configs to try; none where the step does not apply."""
    apply: Callable[[Checkpoint, ViTConfig], Checkpoint]
    told: Callable[[ViTConfig, ViTConfig], str]
    """What was added, from the config before and after; empty where ``apply`` records it."""


def restated_config(config: ViTConfig, cannot_hold: CannotHold) -> ViTConfig:
    """The config after all steps that bring it nearer to what a format holds."""
    return next(reversed([config, *(new for _, new in _steps(config, cannot_hold))]))


def restated(checkpoint: Checkpoint, cannot_hold: CannotHold) -> Checkpoint | None:
    """The same function as a format holds it.

    Args:
        checkpoint: any; it is not read here.
        cannot_hold: the format's complaints.

    Returns:
        ``None`` where the format cannot hold it that way either.
    """
    if not isinstance(checkpoint.config, ViTConfig) or cannot_hold(restated_config(checkpoint.config, cannot_hold)):
        return None
    for step, config in _steps(checkpoint.config, cannot_hold):
        before = checkpoint.config
        checkpoint = step.apply(checkpoint, config)
        if told := step.told(before, config):
            checkpoint = checkpoint.changed(told)
    return checkpoint


_OTHER_NAMES = ("parallel", "branched")
"""Blocks whose MLPs have other names."""


def _steps(config: ViTConfig, cannot_hold: CannotHold) -> Iterator[tuple[_Step, ViTConfig]]:
    for step in _STEPS:
        before, complaints = config, len(cannot_hold(config))
        while better := next((new for new in step.configs(config) if len(cannot_hold(new)) < complaints), None):
            config, complaints = better, len(cannot_hold(better))
        if config != before:
            yield step, config


def _with_biases(config: ViTConfig) -> Iterator[ViTConfig]:
    if config.block == "parallel":
        return
    usable = {"qkv_bias": not config.qv_bias, "proj_bias": True, "norm_bias": config.norm == "layernorm"}
    usable |= {"patch_bias": True}
    names = [name for name, possible in usable.items() if possible and not getattr(config, name)]
    for chosen in (*([name] for name in names), names):  # all at once where a format has all or none
        yield config.replace(**dict.fromkeys(chosen, True))
    if config.mlp_bias is not None:
        yield config.replace(proj_bias=True, mlp_bias=None)


def _with_key_biases(config: ViTConfig) -> Iterator[ViTConfig]:
    if config.qv_bias:
        yield config.replace(qkv_bias=True, qv_bias=False)


def _with_layer_scale(config: ViTConfig) -> Iterator[ViTConfig]:
    if config.layer_scale is None:
        yield config.replace(layer_scale=1.0)
    if config.scale_attention_only:
        yield config.replace(scale_attention_only=False)


def _packed(config: ViTConfig) -> Iterator[ViTConfig]:
    if config.mlp == "swiglu" and config.block not in _OTHER_NAMES:
        yield config.replace(mlp="swiglu_packed")


def _wider(config: ViTConfig) -> Iterator[ViTConfig]:
    """Hidden widths that whole ratios give, plain and as DINOv2 rounds them for its SwiGLU."""
    if config.block in _OTHER_NAMES or any(".mlp.norm." in it.name for it in parameters(config)):
        return  # a norm would see the zeros
    ratio = math.ceil(config.hidden_dim / config.embed_dim)
    plain = (config.embed_dim * k for k in (ratio, ratio + 1))
    gated = ((int(config.embed_dim * k * 2 / 3) + 7) // 8 * 8 for k in range(ratio, 2 * ratio + 3))
    for width in sorted({*plain, *gated}):
        if width > config.hidden_dim:
            yield config.replace(mlp_hidden_dim=width)


def _reading_both(config: ViTConfig) -> Iterator[ViTConfig]:
    """A head on class token and patch mean; it exists before the last layer only."""
    plain = (
        config.class_token and not config.distilled and not config.pool_prefix and config.representation_size is None
    )
    if plain and config.num_classes and config.pool in ("token", "avg") and config.final_norm != "pooled":
        yield config.replace(pool="token_avg")


def _positioned(config: ViTConfig) -> Iterator[ViTConfig]:
    if config.pos_embed == "patch" and config.class_token:
        yield config.replace(pos_embed="prefix")


def _filled(checkpoint: Checkpoint, config: ViTConfig) -> Checkpoint:
    """Zeros for new biases, ones for new scales."""
    old = checkpoint.params.tensors
    dtype = next(checkpoint.params.spec(it.name)[1] for it in parameters(config) if it.is_kernel and it.name in old)
    tensors = {
        it.name: old[it.name] if it.name in old else _constant(it.shape, dtype, float(it.kind is Kind.SCALE))
        for it in parameters(config)
    }
    return replace(checkpoint, config=config, params=TensorTable(tensors))


def _with_joint_biases(checkpoint: Checkpoint, config: ViTConfig) -> Checkpoint:
    """Zeros between the biases of queries and those of values."""
    old = checkpoint.params.tensors

    def make(name: str, shape: tuple[int, ...]) -> Tensor:
        if name in old:
            return old[name]
        q, v = (old[name.replace("qkv.bias", f"{part}_bias")] for part in "qv")
        return Tensor(shape, q.dtype, lambda: np.concatenate([q.read(), np.zeros_like(q.read()), v.read()]))

    tensors = {it.name: make(it.name, it.shape) for it in parameters(config)}
    return replace(checkpoint, config=config, params=TensorTable(tensors))


def _with_packed(checkpoint: Checkpoint, config: ViTConfig) -> Checkpoint:
    old = checkpoint.params.tensors

    def make(name: str) -> Tensor:
        if name in old:
            return old[name]
        gate, value = (old[name.replace(".fc1.", part)] for part in (".fc1_g.", ".fc1_x."))
        shape = (gate.shape[0] + value.shape[0], *gate.shape[1:])
        return Tensor(shape, gate.dtype, lambda: np.concatenate([gate.read(), value.read()]))

    return replace(checkpoint, config=config, params=TensorTable({it.name: make(it.name) for it in parameters(config)}))


def _with_padding(checkpoint: Checkpoint, config: ViTConfig) -> Checkpoint:
    old, width = checkpoint.params.tensors, checkpoint.config.hidden_dim

    def make(name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = old[name]
        if tensor.shape == shape:
            return tensor

        def read() -> np.ndarray:
            array, padded = tensor.read(), np.zeros(shape, tensor.dtype)
            if array.ndim == 2 and array.shape[0] == shape[0]:  # inputs of the second layer
                padded[:, :width] = array
                return padded
            for at in range(array.shape[0] // width):  # gate and value, or one layer
                start = at * config.hidden_dim
                padded[start : start + width] = array[at * width : (at + 1) * width]
            return padded

        return Tensor(shape, tensor.dtype, read)

    tensors = {it.name: make(it.name, it.shape) for it in parameters(config)}
    return replace(checkpoint, config=config, params=TensorTable(tensors))


def _with_zeros_for_the_other(checkpoint: Checkpoint, config: ViTConfig) -> Checkpoint:
    head = checkpoint.params.tensors["head.weight"]
    before = checkpoint.config.embed_dim if checkpoint.config.pool == "avg" else 0

    def read() -> np.ndarray:
        array = head.read()
        return np.pad(array, ((0, 0), (before, config.pooled_dim - array.shape[1] - before)))

    wide = Tensor((head.shape[0], config.pooled_dim), head.dtype, read)
    tensors = {name: wide if name == "head.weight" else it for name, it in checkpoint.params.tensors.items()}
    return replace(checkpoint, config=config, params=TensorTable(tensors))


def _constant(shape: tuple[int, ...], dtype: np.dtype, value: float) -> Tensor:
    return Tensor(shape, dtype, lambda: np.full(shape, value, dtype))


def _biases_told(before: ViTConfig, after: ViTConfig) -> str:
    added = [name for name in ("qkv_bias", "proj_bias", "mlp_bias", "norm_bias", "patch_bias")
             if getattr(after, name) != getattr(before, name)]  # fmt: skip
    return f"zeros for the biases that the model does not have ({', '.join(added)})"


_STEPS = (
    _Step(_with_key_biases, _with_joint_biases, lambda before, after: "zeros for the biases of keys"),
    _Step(_with_biases, _filled, _biases_told),
    _Step(_packed, _with_packed, lambda before, after: "gate and value of the SwiGLU stacked in one layer"),
    _Step(
        _wider,
        _with_padding,
        lambda before, after: f"zeros for {after.hidden_dim - before.hidden_dim} more hidden units of the MLPs",
    ),
    _Step(_with_layer_scale, _filled, lambda before, after: "ones for the layer scales"),
    _Step(
        _reading_both,
        _with_zeros_for_the_other,
        lambda before, after: (
            "zeros in the head for "
            + ("the class token, beside the mean of the patches" if before.pool == "avg" else "the mean of the patches")
        ),
    ),
    _Step(_positioned, lambda checkpoint, config: with_positions(checkpoint, "prefix"), lambda before, after: ""),
)
