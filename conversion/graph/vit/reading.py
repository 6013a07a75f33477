"""A graph read as a Vision Transformer: its config and its canonical weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conversion.graph.expression import Expression, View
from conversion.graph.fold import fold
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.layers import Layers, Norm
from conversion.graph.trace import Trace
from conversion.graph.vit.block import BlockReader, Body, Branch, Mlp
from conversion.graph.vit.embedding import Embedding, EmbeddingReader
from conversion.graph.vit.head import Head, HeadReader
from conversion.graph.vit.weights import Weights
from conversion.tensors.table import Tensor
from vit_spec import VitportError


@dataclass(frozen=True)
class Reading:
    """A model, and where a graph computes its stages."""

    facts: Mapping[str, Any]
    """Config fields."""
    tensors: Mapping[str, Tensor]
    """Canonical name → tensor."""
    notes: tuple[str, ...]
    channels_last: bool
    """Whether the graph takes (B, H, W, C)."""
    stages: Mapping[str, str] = field(default_factory=dict)
    """Stage of the model (``embed``, ``blocks.0``, …, ``norm``, ``head``) → the graph's value that holds it."""


def read(found: Trace) -> Reading:
    """Read a graph that was followed.

    Raises:
        NotUnderstoodError: with the node that is not what a ViT has there.
    """
    reader = _Reader(found)
    head, name, notes = reader.output()
    return _Assembly(reader, head, name, notes).reading()


class _Reader:
    """Finds the output that says most about the model."""

    def __init__(self, found: Trace) -> None:
        self.trace = found
        self.batch = found.image.shape[0]
        self.layers = Layers()
        self.blocks = BlockReader(self.layers, self.batch)
        self.heads = HeadReader(self.layers, self.blocks, self.batch)

    def output(self) -> tuple[Head, str, list[str]]:
        """The head, the graph's name of its output, and notes."""
        read: dict[str, Head] = {}
        errors: dict[str, NotUnderstoodError] = {}
        for name, value in self.trace.outputs.items():
            try:
                if not isinstance(value, View) or not value.expression.varies or value.expression.kind == "unknown":
                    raise self._unknown(name)
                head = self.heads.read(value)
                self._check_depth(head, name)
                read[name] = head
            except NotUnderstoodError as error:
                errors[name] = error
        if not read:
            return self._behind(errors)
        name = max(read, key=lambda it: read[it].completeness)
        aside = [it for it in errors if errors[it]]
        notes = [f"set aside the graph's output {it}: {errors[it]}" for it in aside]
        return read[name], name, notes

    def _behind(self, errors: Mapping[str, NotUnderstoodError]) -> tuple[Head, str, list[str]]:
        """A model with something else behind it, such as a decoder of maps: its tokens alone."""
        first = next(iter(errors.values()))
        shapes = [value.shape for value in self.trace.outputs.values() if isinstance(value, View)]
        if any(len(shape) == 2 for shape in shapes):  # a vector for each image: a head that must not be left out
            raise first
        for expression in _backwards(self.trace.outputs.values()):
            if len(expression.shape) != 3 or self.layers.norm(expression) is None:
                continue
            try:
                head = self.heads.read(View(expression, expression.shape))
                self._check_depth(head, "")
            except NotUnderstoodError:
                continue
            what = self.trace.unknown[0] if self.trace.unknown else str(first)
            return head, expression.value, [f"set aside what follows the last norm and is no head ({what})"]
        raise first

    def _unknown(self, name: str) -> NotUnderstoodError:
        if self.trace.unknown:
            return NotUnderstoodError(
                f"The graph's output {name!r} depends on {self.trace.unknown[0]}, which is no operation of a Vision "
                "Transformer that vitport reads."
            )
        return NotUnderstoodError(f"The graph's output {name!r} does not depend on the image.")

    @staticmethod
    def _check_depth(head: Head, name: str) -> None:
        assert head.body is not None
        if not head.body.branches:
            raise NotUnderstoodError(
                f"The graph's output {name!r} is computed without any block of a Vision Transformer: its tokens are "
                f"{head.body.embedding.place or head.body.embedding.kind}."
            )


class _Assembly:
    """Config and weights of one reading."""

    def __init__(self, reader: _Reader, head: Head, output: str, notes: list[str]) -> None:
        assert head.body is not None
        self.reader = reader
        self.head = head
        self.output = output
        self.notes = notes
        self.body: Body = head.body
        self.embedding: Embedding = EmbeddingReader(reader.layers, reader.batch).read(self.body.embedding)
        self.norms: list[Norm] = []
        self.blocks = list(_blocks(self.body))

    def reading(self) -> Reading:
        e, parallel = self.embedding, self.body.branches[0].attention is not None and self.body.branches[0].mlp is not None
        attentions = [it[0].attention for it in self.blocks if it[0].attention is not None]
        mlps = [it[-1].mlp for it in self.blocks if it[-1].mlp is not None]
        operands = [it for one in attentions for it in (one.attention.query, one.attention.key, one.attention.value)]
        biased = [it.bias for it in operands]
        if parallel and all(it is None for it in biased):
            qkv_bias = False
        else:
            qkv_bias = any(it is not None for it in biased)
        outs = [one.out.bias for one in attentions] + [it.second.bias for it in mlps]
        if not parallel:
            outs += [it.first.bias for it in mlps]
        weights = Weights(
            qkv_bias=qkv_bias, proj_bias=any(it is not None for it in outs),
            norm_bias=any(it.bias is not None for it in self._norms()),
        )  # fmt: skip
        facts = self._facts(weights, parallel)
        self._put(weights, parallel)
        if e.patches.folded:
            self.notes.append(
                "folded the graph's arithmetic on pixels into the patch projection: images are given as the graph takes "
                "them"
            )
        if self.head.softmax:
            self.notes.append("set aside the softmax behind the head: the model gives logits")
        if self.head.kind == "tokens":
            self.notes.append("the graph gives all tokens and pools none: pool is what features are taken from")
        if self.reader.trace.dequantised:
            self.notes.append(f"dequantised {self.reader.trace.dequantised} weights by their scales")
        return Reading(facts, weights.tensors, tuple(self.notes), e.patches.channels_last, self._stages())

    def _norms(self) -> list[Norm]:
        if not self.norms:
            e, h = self.embedding, self.head
            found = [e.patch_norm, e.norm_pre, h.norm, h.pooled_norm, None if h.pool is None else h.pool.norm]
            for branch in self.body.branches:
                found += [branch.before, branch.after]
                if branch.attention is not None:
                    attention = branch.attention.attention
                    found += [branch.attention.norm, attention.query.norm, attention.key.norm]
                if branch.mlp is not None:
                    found.append(branch.mlp.norm)
            self.norms = [norm for norm in found if norm is not None]
        return self.norms

    def _facts(self, weights: Weights, parallel: bool) -> dict[str, Any]:
        e, norms = self.embedding, self._norms()
        attention = [it.attention.attention for it in self.body.branches if it.attention is not None]
        mlps = [it.mlp for it in self.body.branches if it.mlp is not None]
        pool = self.head.pool
        low = _low_precision(norms)
        size = e.patches.image_size
        P = e.patches.kernel.shape[2]
        if e.table is not None and e.table_grid != e.patches.grid:
            size = (e.table_grid[0] * P, e.table_grid[1] * P)
        facts: dict[str, Any] = {
            "image_size": size,
            "num_heads": _only("heads", [(it.heads, it.place) for it in attention]),
            "activation": _only("activation", [
                (it.activation, it.second.place) for it in mlps + ([pool.mlp] if pool else [])
            ]),
            "norm": "layernorm" if _only("kind of norm", [(it.centred, it.place) for it in norms]) else "rmsnorm",
            "norm_eps": _decimal(_only("epsilon", [(_decimal(it.eps, low), it.place) for it in norms]), low),
            "qk_scale": self._scale([(it.scale, it.place) for it in attention], low),
            "block": "parallel" if parallel else "post_norm" if self.body.branches[0].after is not None else "sequential",
            "pos_embed_resize": _resize_name(e.resize),
            **self._tokens(weights),
        }  # fmt: skip
        if pool is not None and pool.attention.heads != facts["num_heads"]:
            raise NotUnderstoodError(
                f"The graph's {pool.attention.place} pools with {pool.attention.heads} heads, but its blocks have "
                f"{facts['num_heads']}."
            )
        return {name: value for name, value in facts.items() if name != "pos_embed_resize" or value is not None}

    def _scale(self, found: list[tuple[float, str]], low: bool) -> float | None:
        d = self._width() // self._heads()
        usual = d**-0.5
        tolerance = 2e-3 if low else 1e-6
        values = [(None if abs(scale / usual - 1) <= tolerance else _decimal(scale, low), at) for scale, at in found]
        return _only("scale of attention", values)

    def _width(self) -> int:
        return self.embedding.patches.kernel.shape[0]

    def _heads(self) -> int:
        return next(it.attention.attention.heads for it in self.body.branches if it.attention is not None)

    def _tokens(self, weights: Weights) -> dict[str, Any]:
        """Tokens in front, their positions, and pooling."""
        e, h = self.embedding, self.head
        prefix, patches = len(e.tokens), e.patches.grid[0] * e.patches.grid[1]
        distilled = h.kind == "token" and h.rows == (0, 1)
        named = min(prefix, 2 if distilled else 1)
        positioned = e.positioned
        if e.table is None:
            kind = "none"
        elif positioned in (0, named) or positioned == prefix:
            kind = "patch" if positioned == 0 else "prefix" if positioned == named else "all"
        else:
            raise NotUnderstoodError(
                f"The graph gives positions to {positioned} of {prefix} tokens in front of the patches, where none, the "
                "class token or all were expected."
            )
        pool, everything = h.kind, False
        if pool == "tokens":
            pool = "token" if prefix else "avg"
        elif pool != "token":
            rows = h.rows[1:] if pool == "token_avg" else h.rows
            everything = len(rows) == prefix + patches and prefix > 0
            if rows != tuple(range(0 if everything else prefix, prefix + patches)):
                raise NotUnderstoodError(
                    f"The graph pools {len(rows)} of {prefix + patches} tokens, where all or all patches were expected."
                )
        if pool in ("token", "token_avg") and (prefix == 0 or h.rows[:1] not in ((0,), h.rows[:1] if h.kind == "tokens" else ())):
            raise NotUnderstoodError(
                f"The graph's head reads token {h.rows[0]}, where the first, made of constants, was expected."
            )
        if h.norm is not None and h.pooled_norm is not None:
            raise NotUnderstoodError(f"The graph's {h.pooled_norm.place} norms what is pooled from normed tokens.")
        self.distilled, self.prefix = distilled, prefix
        return {
            "pool": pool,
            "pool_prefix": everything,
            "pos_embed": kind,
            "distilled": distilled,
            "class_token": prefix > 0,
            "register_tokens": prefix - named,
            "final_norm": "tokens" if h.norm is not None else "pooled" if h.pooled_norm is not None else "none",
        }

    def _put(self, weights: Weights, parallel: bool) -> None:
        e, h, D = self.embedding, self.head, self._width()
        names = ["cls_token"] + (["dist_token"] if self.distilled else [])
        for at, name in enumerate(names[: self.prefix]):
            weights.put(name, e.tokens[at].reshape(1, 1, D))
        if self.prefix > len(names):
            weights.put("reg_token", e.tokens[len(names) :][None])
        if e.table is not None:
            weights.put("pos_embed", e.table[None])
        weights.put("patch_embed.proj.weight", e.patches.kernel)
        if e.patches.bias is not None:
            weights.put("patch_embed.proj.bias", e.patches.bias)
        for name, norm in (("patch_embed.norm", e.patch_norm), ("norm_pre", e.norm_pre)):
            if norm is not None:
                weights.norm(name, norm)
        for at, block in enumerate(self.blocks):
            if parallel:
                weights.parallel_block(f"blocks.{at}", block[0])
            else:
                weights.block(f"blocks.{at}", *block)
        if h.norm is not None:
            weights.norm("norm", h.norm)
        if h.pool is not None:
            attention = h.pool.attention
            latent = fold(View(h.pool.latent, h.pool.latent.shape))
            usual = (D // attention.heads) ** -0.5
            close = abs(attention.scale / usual - 1) <= 2e-3 if _low_precision(self.norms) else 1e-6
            factor = 1.0 if abs(attention.scale / usual - 1) <= float(close) else attention.scale / usual
            weights.pool("attn_pool", h.pool, latent.reshape(-1)[:D], factor)
        if h.pooled_norm is not None:
            weights.norm("fc_norm", h.pooled_norm)
        weights.heads(h)

    def _stages(self) -> dict[str, str]:
        """Stages whose value the graph has under a name of its own."""
        sums = self.body.sums if len(self.body.sums) == len(self.blocks) else self.body.sums[1::2]
        found: dict[str, Expression | None] = {"embed": self.body.embedding}
        found |= {f"blocks.{at}": sums[at] for at in range(len(self.blocks))}
        values = {name: it.value for name, it in found.items() if it is not None and it.value}
        if self.head.norm is not None and self.head.kind == "tokens":
            values["norm"] = self.output
        elif self.head.output is not None and (self.head.output.value or not self.head.softmax):
            values["head"] = self.head.output.value if self.head.softmax else self.output
        return values


def _blocks(body: Body) -> Iterable[tuple[Branch, ...]]:
    """Branches two by two, attention before MLP; one by one where each has both."""
    branches = body.branches
    if branches[0].attention is not None and branches[0].mlp is not None:
        for branch in branches:
            if branch.attention is None or branch.mlp is None:
                raise NotUnderstoodError(f"The graph's {branch.place} is a block unlike the first, a parallel one.")
            yield (branch,)
        return
    if len(branches) % 2:
        raise NotUnderstoodError(f"The graph has {len(branches)} layers on its residual stream, where pairs were expected.")
    for first, second in zip(branches[::2], branches[1::2], strict=True):
        if first.attention is None or second.mlp is None or first.mlp is not None or second.attention is not None:
            raise NotUnderstoodError(f"The graph's {first.place} is where a block's attention and MLP were expected.")
        if (first.after is None) != (branches[0].after is None) or (second.after is None) != (branches[0].after is None):
            raise NotUnderstoodError(f"The graph's {first.place} norms at another place than the first block.")
        yield first, second


def _only(what: str, found: list[tuple[Any, str]]) -> Any:
    """The value that all layers share."""
    first, at = found[0]
    for value, place in found[1:]:
        if value != first:
            raise NotUnderstoodError(
                f"The graph has more than one {what}: {first} at {at}, {value} at {place}; a ViTConfig holds one."
            )
    return first


def _decimal(value: float, low: bool) -> float:
    """The shortest decimal that the stored number is, which is what somebody wrote."""
    return float(str(np.float16(value) if low and value > 1e-7 else np.float32(value)))


def _low_precision(norms: list[Norm]) -> bool:
    return any(part is not None and part.dtype.itemsize == 2 for norm in norms for part in (norm.weight, norm.bias))


def _resize_name(settings: Mapping[str, Any] | None) -> str | None:
    """Which of ``vit_spec.PositionResize`` a Resize node is."""
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
        f"The graph resizes positions in a way that vitport does not have (mode {mode}, {where}, antialias {antialias}, "
        f"coefficient {coefficient:g})."
    )


def _backwards(outputs: Iterable[Any]) -> list[Expression]:
    """Every expression behind the outputs, the last one first."""
    seen: dict[int, Expression] = {}
    waiting = [value.expression for value in outputs if isinstance(value, View)]
    while waiting:
        at = waiting.pop()
        if at.number not in seen:
            seen[at.number] = at
            waiting += [view.expression for view in at.views]
    return [seen[number] for number in sorted(seen, reverse=True)]


__all__ = ["Mlp", "Reading", "VitportError", "read"]
