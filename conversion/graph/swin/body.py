"""The residual stream of a Swin Transformer in a graph: blocks, and the merging of patches between stages."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from conversion.graph.expression import Expression, View
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.heads import in_words
from conversion.graph.layers import Layers, Linear, Norm, in_own_order
from conversion.graph.mlp import Mlp, mlp_of
from conversion.graph.patches import patches_of
from conversion.graph.swin.attention import WindowAttention, attention_of
from conversion.graph.swin.rows import elements, rows, through


@dataclass(frozen=True, eq=False)
class Branch:
    """What is added to the stream: attention within windows, or an MLP."""

    norm: Norm
    after: bool
    """Whether the norm is after the layer (version 2) or before it."""
    attention: WindowAttention | None
    out: Linear
    """Of attention."""
    taken: np.ndarray
    """For each token of the stream, which row of ``out`` is added to it."""
    mlp: Mlp | None
    place: str


@dataclass(frozen=True, eq=False)
class Merging:
    """Four tokens made one."""

    norm: Norm
    after: bool
    """Whether the norm is after the layer (version 2) or before it."""
    layer: Linear
    order: np.ndarray  # (tokens of a batch, 4 D)
    """Index of the element in the stream before, or -1 for padding."""
    place: str


@dataclass(frozen=True, eq=False)
class Stage:
    """Blocks over maps of one size: branches in order, and the stream after each."""

    merging: Merging | None
    branches: tuple[Branch, ...]
    sums: tuple[Expression, ...] = field(default=())


class BodyReader:
    """Reads the residual stream backwards."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    def body(self, at: Expression) -> tuple[Expression, tuple[Stage, ...]]:
        """The input of the first block, and the stages whose output is ``at``.

        Raises:
            NotUnderstoodError: if they are not stages of a Swin Transformer.
        """
        stages: list[Stage] = []
        branches: list[Branch] = []
        sums: list[Expression] = []
        while True:
            terms = self.layers.terms(at)
            if terms is not None and terms[0].varies and terms[1].varies:
                branch, before = self._summed(at, *terms)
                branches.append(branch)
                sums.append(at)
                at = before
                continue
            found = self._merging(at) if patches_of(self._bare(at), self.layers) is None else None
            if found is None:
                stages.append(Stage(None, tuple(reversed(branches)), tuple(reversed(sums))))
                return at, tuple(reversed(stages))
            merging, at = found
            stages.append(Stage(merging, tuple(reversed(branches)), tuple(reversed(sums))))
            branches, sums = [], []

    def _bare(self, at: Expression) -> Expression:
        """Without a norm."""
        norm = self.layers.norm(at)
        return at if norm is None or norm.x.order is not None else norm.x.expression

    def _summed(
        self, at: Expression, x: Expression, y: Expression, bias: np.ndarray | None
    ) -> tuple[Branch, Expression]:
        errors: list[NotUnderstoodError] = []
        for stream, branch in ((x, y), (y, x)):
            try:
                return self._branch(branch, stream, bias), stream
            except NotUnderstoodError as error:
                errors.append(error)
        raise next((it for it in errors if "where a linear layer was expected" not in str(it)), errors[0])

    def _branch(self, at: Expression, stream: Expression, bias: np.ndarray | None) -> Branch:
        """What is added to ``stream``, if it is computed from it."""
        place = at.place
        taken = np.arange(stream.size // stream.shape[-1])
        after: Norm | None = None
        while True:
            moved = rows(View(at, at.shape))
            if moved is None:
                raise NotUnderstoodError(f"The graph's {place} adds what are not whole tokens.")
            at, taken = moved[0], through(taken, moved[1])
            norm = self.layers.norm(at)
            if norm is None or after is not None:
                break
            after = norm
            inner = rows(norm.x)
            if inner is None:
                raise NotUnderstoodError(f"The graph's {place} adds what are not whole tokens.")
            at, taken = inner[0], through(taken, inner[1])
        out = self.layers.linear(at)
        if out is None:
            raise NotUnderstoodError(
                f"The graph's {place} adds {in_words(at)} to tokens, where a linear layer was expected."
            )
        if bias is not None:
            out = Linear(out.x, out.kernel, bias if out.bias is None else out.bias + bias, out.place)
        attention = attention_of(out.x, out.kernel.shape[0], self.layers)
        if attention is not None:
            before = self._between(attention.query.source, stream, after, place)
            return Branch(before, after is not None, attention, out, taken, None, place)
        if not np.array_equal(taken, np.arange(len(taken))):
            raise NotUnderstoodError(f"The graph's {place} adds MLPs of other tokens to tokens.")
        mlp = mlp_of(out.x, None, out, self.layers)
        if mlp.columns is not None or mlp.value is not None:
            raise NotUnderstoodError(f"The graph's {place} adds a gated MLP, which no Swin Transformer has.")
        before = self._between(in_own_order(mlp.first.x, place), stream, after, place)
        return Branch(before, after is not None, None, mlp.second, taken, mlp, place)

    def _between(self, source: Expression, stream: Expression, after: Norm | None, place: str) -> Norm:
        """The branch's only norm, which is after it or between the stream and the layer."""
        if after is not None:
            if source is stream:
                return after
            raise NotUnderstoodError(
                f"The graph's {place} has norms before a layer and after it, or reads other tokens."
            )
        norm = self.layers.norm(source)
        if norm is None or norm.x.order is not None or norm.x.expression is not stream:
            raise NotUnderstoodError(f"The graph's {place} adds what is not computed from the norm of these tokens.")
        return norm

    def _merging(self, at: Expression) -> tuple[Merging, Expression] | None:
        after = self.layers.norm(at)
        layer = self.layers.linear(at if after is None else in_own_order(after.x, at.place))
        if layer is None:
            return None
        norm, view = after, layer.x
        if norm is None:
            norm = self.layers.norm(view.expression) if view.order is None else None
            if norm is None:
                return None
            view = norm.x
        found = elements(view)
        if found is None or found[0].kind == "image":
            return None
        stream, order = found
        inputs = layer.kernel.shape[0]
        if inputs != 4 * stream.shape[-1] or layer.bias is not None:
            return None
        order = order.reshape(-1, inputs)
        return Merging(norm, after is not None, layer, order, layer.place), stream
