"""What is usually wrong with a port, each as a model that can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Literal, get_args

import ml_dtypes
import numpy as np

from vit_parity.bound import belongs
from vit_parity.replay import Subject
from vit_spec import Preprocessing
from vit_spec.preprocessing import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD
from vit_spec.vit.config import Activation, PositionResize

if TYPE_CHECKING:
    from conversion import Checkpoint

Scope = Literal["stage", "blocks", "model"]
Turn = Callable[[np.ndarray], np.ndarray]
EPSILONS = (1e-12, 1e-6, 1e-5, 1e-3)
NORMALISATIONS = {
    "ImageNet's mean and deviation": (IMAGENET_MEAN, IMAGENET_STD),
    "mean and deviation 0.5": (HALF, HALF),
    "CLIP's mean and deviation": (CLIP_MEAN, CLIP_STD),
    "pixels from 0 to 1 as they are": ((0.0,) * 3, (1.0,) * 3),
    "pixels from 0 to 255 as they are": ((0.0,) * 3, (1 / 255,) * 3),
}
_GELUS = {
    "gelu": "erf GELU",
    "gelu_tanh": "tanh GELU",
    "quick_gelu": "Quick GELU",
    "silu": "SiLU",
    "relu": "ReLU",
}


@dataclass(frozen=True)
class Hypothesis:
    """A cause, in words that follow "B", and the model as it would then be."""

    cause: str
    subject: Subject
    scope: Scope = "stage"
    """Where else it would show."""


@dataclass(frozen=True)
class Origin:
    """What the weights came with, for causes that lie before the model."""

    preprocessing: Preprocessing | None = None
    table: Checkpoint | None = None
    """The checkpoint before its position table was resized to the pictures."""


def hypotheses(subject: Subject, stage: str, origin: Origin) -> Iterator[Hypothesis]:
    """Everything that may have gone wrong in a stage (:func:`vit_parity.replay.stage_of`)."""
    if stage == "embed":
        yield from _pictures(subject, origin)
        yield from _positions(subject, origin)
    elif stage == "head":
        yield from _pooling(subject)
    else:
        for found in (*_attention(subject), *_mlp(subject)):
            yield replace(found, scope="blocks")
    for found in (*_norms(subject), *_precision(subject)):
        yield replace(found, scope="model")
    for found in _weights(subject, stage):
        yield replace(found, scope="blocks" if stage.startswith("blocks.") else "stage")


def _precision(s: Subject) -> Iterator[Hypothesis]:
    """Products of lower precision: of what goes in, of what comes out, or of both, as autocast has it."""
    coarser = {"bfloat16": (_to_bfloat16, 2.0**-8), "float16": (_to_float16, 2.0**-11)}
    for name, (rounded, u) in (coarser | {"TensorFloat-32": (_to_tf32, 2.0**-11)}).items():
        yield from _rounded(replace(s, coarse=u), f"rounds the inputs of {{}} to {name}", rounded, _same)
        if name in coarser:  # nothing is stored in TensorFloat-32
            yield from _rounded(replace(s, coarse=u), f"rounds the results of {{}} to {name}", _same, rounded)
            yield from _rounded(replace(s, coarse=u), f"computes {{}} in {name}", rounded, rounded)


def _rounded(s: Subject, cause: str, read: Turn, stored: Turn) -> Iterator[Hypothesis]:
    """In linear layers, and in attention. A bias is an input where everything is of that dtype, and else is float32."""
    both = read is stored

    def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
        return stored(read(x) @ read(weight).T + (read(np.asarray(bias)) if both else bias))

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return stored(read(a) @ read(b))

    yield Hypothesis(cause.format("linear layers"), replace(s, linear=linear))
    yield Hypothesis(cause.format("attention's products"), replace(s, attention_product=product))


def _pictures(s: Subject, origin: Origin) -> Iterator[Hypothesis]:
    if s.config.in_channels == 3:
        yield Hypothesis("reads the colours as BGR", replace(s, images=s.images[..., ::-1]))
        given = origin.preprocessing
        pixels = None if given is None else s.images * np.array(given.std) + np.array(given.mean)
        for name, (mean, std) in NORMALISATIONS.items():
            if pixels is not None and given is not None and (given.mean, given.std) != (mean, std):
                yield Hypothesis(f"is given {name}", replace(s, images=(pixels - np.array(mean)) / np.array(std)))
    if s.config.image_size[0] == s.config.image_size[1]:
        yield Hypothesis("swaps rows and columns of the picture", replace(s, images=s.images.swapaxes(1, 2)))
    kernel = {"patch_embed.proj.weight": s.params["patch_embed.proj.weight"].swapaxes(2, 3)}
    yield Hypothesis("swaps height and width of the patch kernel", replace(s, params=dict(s.params) | kernel))


def _positions(s: Subject, origin: Origin) -> Iterator[Hypothesis]:
    c = s.config
    if c.pre_norm:
        yield Hypothesis("leaves out the norm before the first block", replace(s, skipped=s.skipped | {"norm_pre"}))
    if c.pos_embed == "none":
        return
    table, prefix = s.params["pos_embed"], c.num_positioned_prefix_tokens
    yield Hypothesis("adds no position embedding", _with(s, "pos_embed", np.zeros_like(table)))
    if prefix:
        yield Hypothesis("adds no position to the prefix tokens", replace(s, bare_prefix=True))
    rows, columns = c.grid_size
    turned = table[:, prefix:].reshape(1, rows, columns, -1).swapaxes(1, 2).reshape(1, rows * columns, -1)
    turned = np.concatenate([table[:, :prefix], turned], axis=1)
    yield Hypothesis("numbers the patches column by column in the position table", _with(s, "pos_embed", turned))
    yield from _resized(s, origin)


def _resized(s: Subject, origin: Origin) -> Iterator[Hypothesis]:
    """Position tables as other methods would have brought them to the pictures' grid."""
    from conversion import resize_position_table

    if origin.table is None or origin.table.config.grid_size == s.config.grid_size:
        return
    old = origin.table.config
    for method in get_args(PositionResize):
        if method != old.pos_embed_resize:
            table = resize_position_table(
                origin.table.params["pos_embed"].astype(np.float64),
                prefix=old.num_positioned_prefix_tokens,
                source_grid=old.grid_size,
                target_grid=s.config.grid_size,
                method=method,
            )
            yield Hypothesis(f"resizes the position table by {method}", _with(s, "pos_embed", table))


def _attention(s: Subject) -> Iterator[Hypothesis]:
    c = s.config
    for order in ("".join(order) for order in permutations("qkv")):
        if order != s.qkv_order:
            yield Hypothesis(f"takes q, k, v in the order {', '.join(order)}", replace(s, qkv_order=order))
            yield Hypothesis(
                f"holds the weights of q, k, v in the order {', '.join(order)}",
                _qkv(s, lambda x, order=order: x[["qkv".index(part) for part in order]]),
            )
    yield Hypothesis("takes q, k, v head by head", replace(s, heads_first=not s.heads_first))
    yield Hypothesis("holds the weights of q, k, v head by head", _qkv(s, _heads_first(c.num_heads)))
    scales = {
        "the square root of the head width": c.head_dim**-0.5,
        "the square root of the whole width": c.embed_dim**-0.5,
        "the head width": 1.0 / c.head_dim,
        "nothing": 1.0,
    }
    for name, scale in scales.items():
        if scale != c.attention_scale:
            yield Hypothesis(f"divides the attention logits by {name}", replace(s, config=c.replace(qk_scale=scale)))


def _mlp(s: Subject) -> Iterator[Hypothesis]:
    c = s.config
    for name in get_args(Activation):
        if name != c.activation:
            yield Hypothesis(f"uses {_GELUS[name]}", replace(s, config=c.replace(activation=name)))
    other = {"sequential": "post_norm", "post_norm": "sequential"}.get(c.block)
    if other == "post_norm":
        yield Hypothesis("norms after attention and MLP, not before", replace(s, config=c.replace(block="post_norm")))
    if other == "sequential":
        yield Hypothesis("norms before attention and MLP, not after", replace(s, config=c.replace(block="sequential")))
    if c.mlp == "swiglu":
        swapped = {".fc1_g.": ".fc1_x.", ".fc1_x.": ".fc1_g."}
        params = {
            next((name.replace(a, b) for a, b in swapped.items() if a in name), name): array
            for name, array in s.params.items()
        }
        yield Hypothesis("swaps gate and value of the MLP", replace(s, params=params))
    if c.mlp == "swiglu_packed":
        yield Hypothesis(
            "swaps gate and value of the MLP",
            s.with_params(lambda name, x: np.roll(x, c.hidden_dim, axis=0) if ".mlp.fc1." in name else x),
        )


def _norms(s: Subject) -> Iterator[Hypothesis]:
    c = s.config
    for epsilon in EPSILONS:
        if epsilon != c.norm_eps:
            yield Hypothesis(f"uses epsilon {epsilon:.0e}", replace(s, config=c.replace(norm_eps=epsilon)))
    if c.norm == "layernorm":
        changed = c.replace(norm="rmsnorm", norm_bias=False)
        yield Hypothesis("norms without subtracting the mean", replace(s, config=changed))
    else:
        yield Hypothesis("subtracts the mean in its norms", replace(s, config=c.replace(norm="layernorm")))
    ends = {".".join(name.split(".")[2:-1]) if name.startswith("blocks.") else name.rpartition(".")[0]
            for name in s.params if "norm" in name or name.endswith(".gamma")}  # fmt: skip
    for end in sorted(ends - {"norm_pre"}):
        what = "layer scale" if end.rpartition(".")[2].startswith("ls") else "norm"
        yield Hypothesis(f"leaves out the {what} {end}", replace(s, skipped=s.skipped | {end}))


def _pooling(s: Subject) -> Iterator[Hypothesis]:
    c = s.config
    choices = {
        "the class token": ("token", False),
        "the mean of the patches": ("avg", False),
        "the mean of all tokens": ("avg", True),
    }
    for name, (pool, over_all) in choices.items():
        possible = c.class_token or pool == "avg"
        if possible and not c.distilled and c.pool in ("token", "avg") and (pool, over_all) != (c.pool, c.pool_prefix):
            changed = c.replace(pool=pool, pool_prefix=over_all)
            yield Hypothesis(f"pools {name}", replace(s, config=changed))
    if c.pre_logits_dim is not None:
        yield Hypothesis("leaves out the tanh of pre_logits", replace(s, skipped=s.skipped | {"pre_logits.act"}))


def _weights(s: Subject, stage: str) -> Iterator[Hypothesis]:
    """Faults of a conversion, in the same layer of every block."""
    for name in s.params:
        if not belongs(name, stage, s.config):
            continue
        end = name.removeprefix(f"{stage}.") if stage.startswith("blocks.") else name
        if name.endswith("bias"):
            yield Hypothesis(f"drops {end}", _each(s, stage, end, None))
            if end == "attn.qkv.bias":
                yield Hypothesis("drops the bias of the keys", _each(s, stage, end, "key bias"))
        elif s.params[name].ndim == 2:
            yield Hypothesis(f"reads {end} as if it were transposed already", _each(s, stage, end, "reshaped"))
            if s.params[name].shape[0] % s.params[name].shape[1] == 0:
                yield Hypothesis(f"has {end} transposed", _each(s, stage, end, "transposed"))


def _each(s: Subject, stage: str, end: str, fault: str | None) -> Subject:
    """The fault in that parameter, in every block where the stage is one."""

    def change(name: str, x: np.ndarray) -> np.ndarray | None:
        here = name.endswith(f".{end}") and name.startswith("blocks.") if stage.startswith("blocks.") else name == end
        if not here:
            return x
        if fault is None:
            return None
        if fault == "reshaped":  # (in, out) in memory, taken for (out, in)
            return np.ascontiguousarray(x.T).reshape(x.shape)
        if fault == "key bias":
            third = len(x) // 3
            return np.concatenate([x[:third], np.zeros(third), x[2 * third :]])
        width = x.shape[1]
        return np.concatenate([part.T for part in x.reshape(-1, width, width)])  # one square after the other

    return s.with_params(change)


def _with(s: Subject, name: str, array: np.ndarray) -> Subject:
    return replace(s, params=dict(s.params) | {name: array})


def _qkv(s: Subject, turn: Turn) -> Subject:
    """The rows of every joint layer turned, given as (3, h d, …)."""

    def change(name: str, x: np.ndarray) -> np.ndarray:
        joint = ".attn.qkv." in name
        return turn(x.reshape(3, len(x) // 3, *x.shape[1:])).reshape(x.shape) if joint else x

    return s.with_params(change)


def _heads_first(heads: int) -> Turn:
    def turn(x: np.ndarray) -> np.ndarray:
        return x.reshape(3, heads, -1, *x.shape[2:]).swapaxes(0, 1)

    return turn


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _to_bfloat16(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def _to_float16(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float64)


def _to_tf32(x: np.ndarray) -> np.ndarray:
    """To 10 bits of mantissa, to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0xFFF + ((bits >> 13) & 1)) & ~np.uint64(0x1FFF)
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)
