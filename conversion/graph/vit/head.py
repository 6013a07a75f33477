"""From the tokens after the last block to an output: norm, pooling, heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from conversion.graph.expression import Expression, View, numbers
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.layers import Layers, Linear, Norm, unselected
from conversion.graph.mlp import Mlp
from conversion.graph.vit.attention import Attention, attention_of
from conversion.graph.vit.block import BlockReader, Body


@dataclass(frozen=True, eq=False)
class AttentionPool:
    """A learned query that attends to tokens, and an MLP."""

    attention: Attention
    out: Linear
    norm: Norm
    mlp: Mlp
    latent: Expression


@dataclass(frozen=True, eq=False)
class Head:
    """How an output is computed from the tokens after the last block."""

    tokens: Expression
    """After the last block, before any norm."""
    rows: tuple[int, ...]
    """Tokens that are pooled."""
    kind: Literal["tokens", "token", "avg", "token_avg", "map"]
    norm: Norm | None = None
    """On tokens."""
    normed: Expression | None = None
    """All tokens after that norm; ``None`` if only some are normalised."""
    pooled_norm: Norm | None = None
    pool: AttentionPool | None = None
    hidden: Linear | None = None
    """The tanh layer."""
    head: Linear | None = None
    distilled: Linear | None = None
    softmax: bool = False
    """Whether the graph gives probabilities; the logits before the softmax are read instead."""
    output: Expression | None = None
    """The output without that softmax."""
    body: Body | None = None

    @property
    def completeness(self) -> tuple[int, int, int]:
        """Of several outputs, the one with the largest value shows most of the model: blocks, heads, pooling."""
        blocks = 0 if self.body is None else len(self.body.branches)
        return blocks, int(self.head is not None) + int(self.distilled is not None), int(self.kind != "tokens")


class HeadReader:
    """Reads outputs backwards, down to the tokens after the last block."""

    def __init__(self, layers: Layers, blocks: BlockReader, batch: int) -> None:
        self.layers = layers
        self.blocks = blocks
        self.batch = batch

    def read(self, output: View) -> Head:
        """How an output is computed.

        Raises:
            NotUnderstoodError: if it is not an output of a ViT.
        """
        at, softmax = output.expression, False
        step = self.layers.step(at)
        if step.kind == "softmax" and step.x is not None and len(at.shape) == 2:
            at, softmax = step.x, True
        found = self._pooled(output, None) if output.order is not None else self._distilled(at) or self._logits(at)
        body = self.blocks.body(found.tokens, found.norm, found.normed)
        if body.has_last_norm:
            found = replace(found, norm=None, normed=None)
        return replace(found, softmax=softmax, output=at, body=body)

    def _distilled(self, at: Expression) -> Head | None:
        """``(head(tokens[0]) + head_dist(tokens[1])) / 2``."""
        inner, factor = self.layers.scaled(at)
        step = self.layers.step(inner)
        if step.kind != "sum" or step.x is None or step.y is None or abs(factor - 0.5) > 1e-6:
            return None
        first, second = sorted((self._logits(term) for term in (step.x, step.y)), key=lambda head: head.rows)
        if (first.rows, second.rows) != ((0,), (1,)) or (first.head is None) != (second.head is None):
            raise NotUnderstoodError(f"The graph's {at.place} averages something other than the heads of two tokens.")
        if first.tokens is not second.tokens or (first.hidden or second.hidden):
            raise NotUnderstoodError(f"The graph's {at.place} is the mean of heads of different tokens.")
        return replace(first, rows=(0, 1), distilled=second.head)

    def _logits(self, at: Expression) -> Head:
        layer = self.layers.linear(at)
        if layer is not None and (pooled := self._maybe(layer.x)) is not None:
            return replace(pooled, head=layer)
        return self._features(at)

    def _maybe(self, view: View) -> Head | None:
        """The pooling of a layer's input; ``None`` if the input is not pooled."""
        head = self._features(view.expression) if view.order is None else self._pooled(view, None)
        return head if head.kind != "tokens" else None

    def _features(self, at: Expression) -> Head:
        step = self.layers.step(at)
        if step.kind == "activation" and step.name == "tanh" and step.x is not None:
            layer = self.layers.linear(step.x)
            if layer is None or abs(step.factor - 1) > 1e-6 or (head := self._maybe(layer.x)) is None:
                raise NotUnderstoodError(
                    f"The graph's {at.place} is the tanh of something other than a layer on pooled tokens."
                )
            return replace(head, hidden=layer)
        norm = self.layers.norm(at)
        if norm is not None:
            return self._pooled(norm.x, norm)
        return self._pooled(View(at, at.shape), None)

    def _pooled(self, view: View, norm: Norm | None) -> Head:
        """Pooling of tokens, with the norm after it, if there is one."""
        at, order = unselected(view)
        if at is None or order is None:
            return self._joined(view)
        if (pool := self._attention_pool(at, order)) is not None:
            return replace(pool, pooled_norm=norm)
        if at.kind == "reduce" and at.facts["op"] == "ReduceMean":
            mean = self._mean(at)
            if mean is not None:
                return replace(mean, pooled_norm=norm)
        if (total := self._summed_mean(at)) is not None:
            return replace(total, pooled_norm=norm)
        if not at.shape or at.size % at.shape[-1] or view.shape[-1] != at.shape[-1]:
            raise self._no_head(at)
        D = at.shape[-1]
        T = at.size // D // self.batch
        rows = order.reshape(self.batch, -1, D)
        first = rows[0, :, 0] // D
        expected = (first[:, None] * D + np.arange(D))[None] + (np.arange(self.batch) * T * D)[:, None, None]
        if not np.array_equal(rows, expected):
            raise self._no_head(at)
        if np.array_equal(first, np.arange(T)) and T > 1:
            return Head(at, tuple(range(T)), "tokens", norm) if norm is not None else self._tokens(at)
        if len(first) != 1:
            raise self._no_head(at)
        head = replace(self._tokens(at), rows=(int(first[0]),), kind="token")
        if head.norm is not None and head.tokens.kind == "select":  # a norm of some tokens
            order = numbers(head.tokens.shape).reshape(self.batch, T, D)[:, first]
            head, norm = self._pooled(View(head.tokens, order.shape, order), None), head.norm if norm is None else norm
        if norm is not None and head.norm is not None:
            return replace(head, pooled_norm=norm)
        return replace(head, norm=norm or head.norm)

    def _tokens(self, at: Expression) -> Head:
        """All tokens, after the last norm or before it."""
        T = at.size // at.shape[-1] // self.batch
        norm = self.layers.norm(at)
        if norm is None or norm.x.order is not None:
            return Head(at, tuple(range(T)), "tokens")
        return Head(norm.x.expression, tuple(range(T)), "tokens", norm, at)

    def _mean(self, at: Expression) -> Head | None:
        """The mean over tokens, in any layout."""
        (view,) = at.views
        base, order = unselected(view)
        if base is None or order is None or not base.shape:
            return None
        axes, D = at.facts["axes"], base.shape[-1]
        kept = [axis for axis in range(len(view.shape)) if axis not in axes]
        order = order.reshape(view.shape).transpose([*kept, *axes]).reshape(at.size, -1)  # (B D, pooled)
        if at.size != self.batch * D:
            return None
        rows = order[0] // D
        T = base.size // D // self.batch
        expected = (np.arange(self.batch) * T * D)[:, None, None] + np.arange(D)[:, None] + np.sort(rows) * D
        if (order[0] % D).any() or not np.array_equal(np.sort(order, -1), expected.reshape(order.shape)):
            return None
        return replace(self._tokens(base), rows=tuple(np.sort(rows).tolist()), kind="avg")

    def _summed_mean(self, at: Expression) -> Head | None:
        """The mean as a sum times ``1 / N``."""
        inner, factor = self.layers.scaled(at)
        if inner.kind != "reduce" or inner.facts["op"] != "ReduceSum":
            return None
        head = self._mean(inner)
        return head if head is not None and abs(factor * len(head.rows) - 1) < 1e-5 else None

    def _joined(self, view: View) -> Head:
        """The class token and the mean of the patches, concatenated."""
        at = view.expression
        bases = at.facts["bases"] if at.kind == "select" else ()
        order = at.facts["order"] if view.order is None else at.facts["order"].reshape(-1)[view.order]
        if len(bases) == 2 and order.size == self.batch * 2 * (D := bases[-1].shape[-1]) and bases[1].kind == "reduce":
            order = order.reshape(self.batch, 2 * D)
            tokens = self._pooled(View(bases[0], (self.batch, D), order[:, :D]), None)
            mean = self._mean(bases[1])
            own = order[:, D:] - bases[0].size
            if (
                mean is not None
                and tokens.kind == "token"
                and np.array_equal(own.reshape(-1), np.arange(bases[1].size))
            ):
                if tokens.tokens is not mean.tokens:
                    raise NotUnderstoodError(f"The graph's {at.place} joins a token and a mean of different tokens.")
                return replace(tokens, rows=(*tokens.rows, *mean.rows), kind="token_avg", norm=mean.norm or tokens.norm)
        raise self._no_head(at)

    def _attention_pool(self, at: Expression, order: np.ndarray) -> Head | None:
        """``x + mlp(norm(x))``, where x is the attention of a learned query."""
        step = self.layers.step(at)
        if step.kind != "sum" or step.x is None or step.y is None or order.size != at.size:
            return None
        for x, y in ((step.x, step.y), (step.y, step.x)):
            out, last = self.layers.linear(x), self.layers.linear(y)
            if out is None or last is None:
                continue
            attention = attention_of(out.x, self.layers, self.batch)
            if attention is None or attention.query.layer.x.expression.varies:
                continue
            branch = self.blocks.branch(y, x)
            source = attention.key.layer.x
            if branch.mlp is None or branch.before is None or branch.scale is not None or source.size == 0:
                continue
            tokens, rows = self._read_by(source, attention.place)
            pool = AttentionPool(attention, out, branch.before, branch.mlp, attention.query.layer.x.expression)
            return replace(tokens, rows=rows, kind="map", pool=pool)
        return None

    def _read_by(self, view: View, place: str) -> tuple[Head, tuple[int, ...]]:
        """The tokens from which keys and values are computed."""
        base, order = unselected(view)
        if base is None or order is None:
            raise NotUnderstoodError(f"The graph's {place} pools something other than tokens.")
        D = base.shape[-1]
        rows = order.reshape(self.batch, -1, D)[0, :, 0] // D
        return self._tokens(base), tuple(rows.tolist())

    def _no_head(self, at: Expression) -> NotUnderstoodError:
        return NotUnderstoodError(
            f"The graph's {at.place or at.kind} is not a head: expected one linear layer (with or without a tanh layer "
            "before it) on the class token, the mean of tokens, or both, or attention pooling."
        )
