"""The config fields that a graph of a Vision Transformer shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.graph.graph import NotUnderstoodError
from conversion.graph.layers import Norm
from conversion.graph.vit.angles import Placed, rotary_of
from conversion.graph.vit.attention import Attention
from conversion.graph.vit.block import Body
from conversion.graph.vit.embedding import Embedding
from conversion.graph.vit.head import Head
from conversion.graph.vit.relative import table_of
from vit_spec.vit.rotary import Rotary

_ORDERS = ("sequential", "post_norm", "original")
"""The kinds of blocks by the place of a branch's norm: before its layer, after it, after the sum."""


def all_norms(e: Embedding, body: Body, h: Head) -> list[Norm]:
    """Every norm of a model."""
    found = [e.patches.norm, e.patch_norm, e.norm_pre, h.norm, h.pooled_norm, None if h.pool is None else h.pool.norm]
    for branch in body.branches:
        found += branch.norms
        if branch.attention is not None:
            attention = branch.attention.attention
            found += [branch.attention.norm, attention.query.norm, attention.key.norm]
        if branch.mlp is not None:
            found.append(branch.mlp.norm)
    return [norm for norm in found if norm is not None]


def config_facts(e: Embedding, body: Body, h: Head) -> dict[str, Any]:
    """Config fields, as far as shapes alone do not show them.

    Raises:
        NotUnderstoodError: if layers differ where a config has one value for all.
    """
    norms, first = all_norms(e, body, h), body.branches[0]
    low = _low_precision(norms)
    attentions = [it.attention.attention for it in body.branches if it.attention is not None]
    for it in attentions:
        if it.bias is not None:
            table_of(it.bias, e.patches.grid, it.place)  # a mask is told by its name
    mlps = [it.mlp for it in body.branches if it.mlp is not None] + ([] if h.pool is None else [h.pool.mlp])
    heads = _only("number of heads", [(it.heads, it.place) for it in attentions])
    d = e.patches.kernel.shape[0] // heads
    parallel = first.attention is not None and first.mlp is not None
    eps = _only("epsilon", [(_decimal(it.eps, low), it.place) for it in norms])
    size, P = e.patches.image_size, e.patches.kernel.shape[2]
    if (
        e.table is not None and e.table_grid != e.patches.grid
    ):  # the table is for images of another size than the graph's
        size = (e.table_grid[0] * P, e.table_grid[1] * P)
    resize = _resize_name(e.resize)
    return {
        "image_size": size,
        "num_heads": heads,
        "map_heads": None if h.pool is None or h.pool.attention.heads == heads else h.pool.attention.heads,
        "activation": _only("activation", [(it.activation, it.second.place) for it in mlps]),
        "norm": "layernorm" if _only("kind of norm", [(it.centred, it.place) for it in norms]) else "rmsnorm",
        "norm_eps": eps,
        "qk_scale": _only(
            "scale of attention",
            [(None if is_usual(it.scale, d, low=low) else _decimal(it.scale, low), it.place) for it in attentions],
        ),
        "block": "parallel" if parallel else _ORDERS[[norm is not None for norm in first.norms].index(True)],
        "rotary": _rotary(attentions, e),
        "relative_bias": _only("kind of attention", [(it.bias is not None, it.place) for it in attentions]),
        **({} if resize is None else {"pos_embed_resize": resize}),
        **_token_facts(e, h),
    }


def is_usual(scale: float, d: int, *, low: bool) -> bool:
    """Whether attention is scaled by ``1 / sqrt(d)``, up to the rounding of the constants in the graph."""
    return abs(scale * d**0.5 - 1) <= (1e-2 if low else 1e-6)


def placed(e: Embedding, place: str) -> Placed:
    """Where the tokens of a model are."""
    return Placed(e.patches.grid, len(e.tokens), place)


def _rotary(attentions: list[Attention], e: Embedding) -> Rotary | None:
    found = [operand.turn for it in attentions for operand in (it.query, it.key)]
    turning = [turn for turn in found if turn is not None]
    if not turning:
        return None
    if len(turning) < len(found):
        raise NotUnderstoodError("The graph turns queries and keys in some blocks, where all or none were expected.")
    return rotary_of(turning, placed(e, attentions[0].place))


def is_distilled(h: Head) -> bool:
    """Whether two tokens are read, each by its own head."""
    return h.kind == "token" and h.rows == (0, 1)


def is_low_precision(e: Embedding, body: Body, h: Head) -> bool:
    """Whether the weights of norms have 16 bits."""
    return _low_precision(all_norms(e, body, h))


def _token_facts(e: Embedding, h: Head) -> dict[str, Any]:
    """Prefix tokens, their positions, and pooling."""
    prefix, count = len(e.tokens), e.patches.grid[0] * e.patches.grid[1]
    named = min(prefix, 2 if is_distilled(h) else 1)
    if e.table is not None and e.positioned not in (0, named, prefix):
        raise NotUnderstoodError(
            f"The graph adds positions to {e.positioned} of {prefix} tokens before the patches, where none, the "
            "class token or all were expected."
        )
    kinds = {0: "patch", prefix: "all", named: "prefix"} if prefix else {0: "prefix"}
    everything = False
    if h.kind in ("avg", "map", "token_avg"):
        rows = h.rows[1:] if h.kind == "token_avg" else h.rows
        everything = len(rows) == prefix + count and prefix > 0
        if rows != tuple(range(0 if everything else prefix, prefix + count)):
            raise NotUnderstoodError(
                f"The graph pools {len(rows)} of {prefix + count} tokens, where all tokens or all patches were "
                "expected."
            )
    if h.kind in ("token", "token_avg") and (prefix == 0 or h.rows[0] != 0):
        raise NotUnderstoodError(
            f"The graph's head reads token {h.rows[0]}, where the first, a constant, was expected."
        )
    if h.norm is not None and h.pooled_norm is not None:
        raise NotUnderstoodError(
            f"The graph's {h.pooled_norm.place} normalises the pooled vector after a norm on the tokens."
        )
    return {
        "pool": ("token" if prefix else "avg") if h.kind == "tokens" else h.kind,
        "pool_prefix": everything,
        "pos_embed": "none" if e.table is None else kinds[e.positioned],
        "distilled": is_distilled(h),
        "class_token": prefix > 0,
        "register_tokens": prefix - named,
        "final_norm": "tokens" if h.norm is not None else "pooled" if h.pooled_norm is not None else "none",
    }


def _only(what: str, found: list[tuple[Any, str]]) -> Any:
    """The value that all layers share."""
    first, at = found[0]
    for value, place in found[1:]:
        if value != first:
            raise NotUnderstoodError(
                f"The graph has more than one {what}: {first} at {at}, {value} at {place}; a ViTConfig has one for all."
            )
    return first


def _decimal(value: float, low: bool) -> float:
    """The shortest decimal that rounds to the stored number, as an author would write it."""
    return float(str(np.float16(value) if low and value > 1e-7 else np.float32(value)))


def _low_precision(norms: list[Norm]) -> bool:
    return any(part is not None and part.dtype.itemsize == 2 for norm in norms for part in (norm.weight, norm.bias))


def _resize_name(settings: Mapping[str, Any] | None) -> str | None:
    """The member of ``vit_spec.PositionResize`` that a Resize node computes."""
    if settings is None:
        return None
    mode = settings.get("mode", "nearest")
    where = settings.get("coordinate_transformation_mode", "half_pixel")
    plain = where in ("half_pixel", "pytorch_half_pixel")
    antialias, coefficient = bool(settings.get("antialias", 0)), settings.get("cubic_coeff_a", -0.75)
    if mode == "cubic" and plain and coefficient == -0.75 and not antialias:
        return "torch-bicubic"
    if mode == "cubic" and plain and antialias and coefficient == -0.5:
        return "torch-bicubic-antialias"
    if mode == "cubic" and where == "align_corners" and not antialias:
        return "torch-bicubic-corners"
    if mode == "linear" and plain and not antialias:
        return "torch-bilinear"
    raise NotUnderstoodError(
        f"The graph resizes positions in a way that vitport does not support (mode {mode}, {where}, antialias "
        f"{antialias}, coefficient {coefficient:g})."
    )
