"""A Transformer layer in a graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from conversion.graph.expression import Expression
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.layers import Layers, Linear, Norm, in_own_order, vector
from conversion.graph.mlp import Mlp, mlp_of
from conversion.graph.vit.attention import Attention, attention_of


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """Attention with its projection."""

    attention: Attention
    norm: Norm | None
    out: Linear


@dataclass(frozen=True, eq=False)
class Branch:
    """What is added to the residual stream: attention or an MLP; both in a parallel block."""

    before: Norm | None
    after: Norm | None
    outside: Norm | None
    """On the sum of the branch and the stream (Vaswani et al. 2017)."""
    scale: np.ndarray | None
    attention: AttentionLayer | None
    mlp: Mlp | None
    place: str

    @property
    def norms(self) -> tuple[Norm | None, Norm | None, Norm | None]:
        """The norms of the branch by their places, of which it has one."""
        return self.before, self.after, self.outside


@dataclass(frozen=True, eq=False)
class Body:
    """All blocks: the first one's input, the branches in order, and the residual stream after each."""

    embedding: Expression
    branches: tuple[Branch, ...]
    sums: tuple[Expression | None, ...] = field(default=())
    """``None`` where only some of the tokens are computed."""
    has_last_norm: bool = False
    """Whether the norm after the tokens belongs to the last block, not to the model."""


class BlockReader:
    """Reads the residual stream backwards.

    Args:
        layers: shared by all readers of a graph.
        batch: number of images with which the graph was evaluated.
    """

    def __init__(self, layers: Layers, batch: int) -> None:
        self.layers = layers
        self.batch = batch
        self._branches: dict[int, tuple[Branch, Expression] | NotUnderstoodError] = {}

    def body(self, at: Expression, last: Norm | None, normed: Expression | None) -> Body:
        """The blocks whose output is ``at``.

        Args:
            at: tokens.
            last: the norm after them.
            normed: what that norm gives, if it normalises all tokens.

        Raises:
            NotUnderstoodError: if they are not blocks of a plain ViT.
        """
        branches: list[Branch] = []
        sums: list[Expression | None] = []
        later, result, has_last_norm = last, normed, False
        while True:
            found = self._summed(at)
            if found is None and (norm := self._norm_of_a_sum(at)) is not None:
                later, result, at = norm, at, norm.x.expression
            elif found is None:
                break
            else:
                branch, stream = found
                if branch.norms == (None, None, None):
                    if later is None:
                        raise NotUnderstoodError(
                            f"The graph's {branch.place} adds a layer with no norm before it, after it, or after the "
                            "sum, as blocks of a ViT have."
                        )
                    has_last_norm |= later is last
                    branch = replace(branch, outside=later)
                    sums.append(result)
                elif later is not None and later is not last:
                    raise NotUnderstoodError(f"The graph's {later.place} normalises the sum after a normalised layer.")
                else:
                    sums.append(at)
                branches.append(branch)
                later, result, at = None, None, stream
        return Body(at, tuple(reversed(branches)), tuple(reversed(sums)), has_last_norm)

    def _norm_of_a_sum(self, at: Expression) -> Norm | None:
        """The norm whose output is ``at``, if it normalises the sum of two layers."""
        norm = self.layers.norm(at)
        if norm is None or norm.x.order is not None:
            return None
        terms = self.layers.terms(norm.x.expression)
        return norm if terms is not None and terms[0].varies and terms[1].varies else None

    def _summed(self, at: Expression) -> tuple[Branch, Expression] | None:
        """The last branch, and the stream to which it is added; ``None`` if ``at`` is not such a sum."""
        if at.number not in self._branches:
            terms = self.layers.terms(at)
            if terms is None or not (terms[0].varies and terms[1].varies):  # a sum with a table of positions
                return None
            tries: list[tuple[Branch, Expression] | NotUnderstoodError] = []
            first, second, bias = terms
            for stream, branch in ((first, second), (second, first)):
                try:
                    tries.append((self.branch(branch, stream, bias), stream))
                except NotUnderstoodError as error:
                    tries.append(error)
            known = [found for found in tries if isinstance(found, tuple)]
            self._branches[at.number] = known[0] if known else _deepest(tries)
        found = self._branches[at.number]
        if isinstance(found, NotUnderstoodError):
            raise found
        return found

    def branch(self, at: Expression, stream: Expression, bias: np.ndarray | None = None) -> Branch:
        """The branch that computes ``at`` from ``stream``.

        Args:
            at: what is added to the stream.
            stream: what it is added to.
            bias: of the branch's last layer, if it is added to the sum.

        Raises:
            NotUnderstoodError: if ``at`` is not computed from the stream as in a block.
        """
        scale, after, place = None, None, at.place
        step = self.layers.step(at)
        if step.kind == "scale" and step.x is not None and step.by is not None and bias is None:
            scale = vector(step.by, at.shape[-1])
            at = step.x if scale is not None else at
        if (after := self.layers.norm(at)) is not None and bias is None:
            at = in_own_order(after.x, place)
        step = self.layers.step(at)
        if step.kind == "sum" and step.x is not None and step.y is not None:
            parts = [self._layer(term, None) for term in (step.x, step.y)]
        else:
            parts = [self._layer(at, bias)]
        inputs = [self._input(part) for part in parts]
        before = self._before(inputs, stream, place)
        if before is not None and after is not None:
            raise NotUnderstoodError(f"The graph's {place} adds a layer with norms before and after it.")
        attentions = [part for part in parts if isinstance(part, AttentionLayer)]
        mlps = [part for part in parts if isinstance(part, Mlp)]
        if max(len(attentions), len(mlps)) > 1:
            raise NotUnderstoodError(f"The graph's {place} adds two layers of the same kind, which no ViT does.")
        layers = attentions[0] if attentions else None, mlps[0] if mlps else None
        return Branch(before, after, None, scale, *layers, place)

    def _before(self, inputs: list[Expression], stream: Expression, place: str) -> Norm | None:
        """The norm between the stream and the layers; ``None`` if they read the stream itself."""
        if all(found is stream for found in inputs):
            return None
        norms = [self.layers.norm(found) for found in inputs]
        for norm in norms:
            if norm is None or in_own_order(norm.x, place) is not stream:
                raise NotUnderstoodError(
                    f"The graph's {place} adds to the tokens what is not computed from their norm, as in a block of a "
                    "ViT."
                )
        if any(found is not inputs[0] for found in inputs) and not _alike(norms):
            raise NotUnderstoodError(f"The graph's {place} adds two layers that read different norms.")
        return norms[0]

    def _layer(self, at: Expression, bias: np.ndarray | None) -> AttentionLayer | Mlp:
        out = self.layers.linear(at)
        if out is None:
            raise NotUnderstoodError(f"The graph's {at.place} is added to tokens, where a linear layer was expected.")
        if bias is not None:
            out = Linear(out.x, out.kernel, bias if out.bias is None else out.bias + bias, out.place)
        x, norm = out.x, self.layers.norm(out.x.expression) if out.x.order is None else None
        if norm is not None:
            x = norm.x
        attention = attention_of(x, self.layers, self.batch)
        if attention is not None:
            return AttentionLayer(attention, norm, out)
        return mlp_of(x, norm, out, self.layers)

    def _input(self, part: AttentionLayer | Mlp) -> Expression:
        if isinstance(part, Mlp):
            layers = [part.first] if part.value is None else [part.first, part.value[0]]
        else:
            layers = [it.layer for it in (part.attention.query, part.attention.key, part.attention.value)]
        inputs = [in_own_order(layer.x, layer.place) for layer in layers]
        if any(found is not inputs[0] for found in inputs) and not _alike([self.layers.norm(it) for it in inputs]):
            raise NotUnderstoodError(f"The graph's {layers[0].place} and the layers beside it read different tokens.")
        return inputs[0]


def _alike(norms: list[Norm | None]) -> bool:
    """Whether they are one norm, exported more than once."""
    first = norms[0]
    return first is not None and all(
        it is not None and it.x.expression is first.x.expression and it.eps == first.eps
        and it.centred == first.centred and _same(it.weight, first.weight) and _same(it.bias, first.bias)
        for it in norms
    )  # fmt: skip


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def _deepest(errors: list[tuple[Branch, Expression] | NotUnderstoodError]) -> NotUnderstoodError:
    """The error of the attempt that went furthest, which does not complain about the first thing expected."""
    found = [error for error in errors if isinstance(error, NotUnderstoodError)]
    return next((error for error in found if "where a linear layer was expected" not in str(error)), found[0])
