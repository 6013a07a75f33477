"""A graph read as a Vision Transformer: its config and its canonical weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from conversion.graph.expression import Expression, View
from conversion.graph.fold import fold
from conversion.graph.graph import NotUnderstoodError
from conversion.graph.layers import Layers
from conversion.graph.reading import Reading
from conversion.graph.trace import Trace
from conversion.graph.vit.block import BlockReader, Body, Branch
from conversion.graph.vit.embedding import Embedding, EmbeddingReader
from conversion.graph.vit.facts import all_norms, config_facts, is_distilled, is_low_precision, is_usual, placed
from conversion.graph.vit.head import Head, HeadReader
from conversion.graph.vit.weights import Weights
from vit_spec.vit.rotary import AxialRotary, Rotary


def read(found: Trace) -> Reading:
    """Find the Vision Transformer in a trace.

    Raises:
        NotUnderstoodError: if it is another model; the message names the first node that does not fit.
    """
    reader = _Reader(found)
    head, name, notes = reader.output()
    return _Assembly(reader, head, name, notes).reading()


class _Reader:
    """Finds the output that shows most of the model."""

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
        for other, error in errors.items():
            if read[name].kind == "tokens" and len(self.trace.outputs[other].shape) in (0, 2):  # it may be the head
                raise error
        notes = [f"set aside the graph's output {it}: {str(error).removesuffix('.')}" for it, error in errors.items()]
        return read[name], name, notes

    def _behind(self, errors: Mapping[str, NotUnderstoodError]) -> tuple[Head, str, list[str]]:
        """The tokens of a model that feeds something else, such as a decoder."""
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
            return head, expression.value, [f"set aside what follows the last norm, which is not a head ({what})"]
        raise first

    def _unknown(self, name: str) -> NotUnderstoodError:
        if self.trace.unknown:
            return NotUnderstoodError(
                f"The graph's output {name!r} depends on {self.trace.unknown[0]}, which is not an operation of a "
                "Vision Transformer that vitport reads."
            )
        return NotUnderstoodError(f"The graph's output {name!r} does not depend on the image.")

    @staticmethod
    def _check_depth(head: Head, name: str) -> None:
        assert head.body is not None
        if not head.body.branches:
            at = head.body.embedding
            raise NotUnderstoodError(
                f"The graph's {at.place or at.kind}, from which its output {name!r} is computed, is neither a block of "
                "a Vision Transformer nor a head: one linear layer (with or without a tanh layer before it) on the "
                "class token, the mean of tokens, or both, or attention pooling."
            )


class _Assembly:
    """The config and the weights of one reading."""

    def __init__(self, reader: _Reader, head: Head, output: str, notes: list[str]) -> None:
        assert head.body is not None
        self.reader = reader
        self.head = head
        self.output = output
        self.notes = notes
        self.body: Body = head.body
        self.embedding: Embedding = EmbeddingReader(reader.layers, reader.batch).read(self.body.embedding)
        self.blocks = list(_blocks(self.body))

    def reading(self) -> Reading:
        e, h, branches = self.embedding, self.head, self.body.branches
        parallel = branches[0].attention is not None and branches[0].mlp is not None
        layers = [it.attention for it in branches if it.attention is not None]
        mlps = [it.mlp for it in branches if it.mlp is not None]
        operands = [it for one in layers for it in (one.attention.query, one.attention.key, one.attention.value)]
        others = [one.out.bias for one in layers] + [it.second.bias for it in mlps]
        others += [] if parallel else [it.first.bias for it in mlps]
        weights = Weights(
            qkv_bias=any(it.bias is not None for it in operands),
            proj_bias=any(it is not None for it in others),
            norm_bias=any(it.bias is not None for it in all_norms(e, self.body, h)),
        )
        facts = config_facts(e, self.body, h)
        self._put(weights, parallel, facts["rotary"])
        if e.patches.folded:
            self.notes.append(
                "folded the graph's arithmetic on pixels into the patch projection: images are given as the graph "
                "takes them"
            )
        if h.softmax:
            self.notes.append("set aside the softmax after the head: the model gives logits")
        if h.kind == "tokens":
            self.notes.append(
                "the graph gives all tokens and does not pool them: pool says what features are taken from"
            )
        if self.reader.trace.dequantised:
            self.notes.append(f"dequantised {self.reader.trace.dequantised} weights by their scales")
        if isinstance(facts["rotary"], AxialRotary) and facts["rotary"].reference_grid is None:
            self.notes.append(
                "the graph shows rotary positions at its own size alone: for other sizes, name the model (--model), "
                "which may scale them to a grid"
            )
        width = e.patches.kernel.shape[0] // facts["num_heads"]
        notes, last = tuple(self.notes), e.patches.channels_last
        return Reading(facts, weights.tensors, notes, last, (width,), self._stages())

    def _put(self, weights: Weights, parallel: bool, rotary: Rotary | None) -> None:
        e, h = self.embedding, self.head
        D = e.patches.kernel.shape[0]
        names = ["cls_token"] + (["dist_token"] if is_distilled(h) else [])
        for name, token in zip(names, e.tokens, strict=False):
            weights.put(name, token.reshape(1, 1, D))
        if len(e.tokens) > len(names):
            weights.put("reg_token", e.tokens[len(names) :][None])
        if e.table is not None:
            weights.put("pos_embed", e.table[None])
        weights.put("patch_embed.proj.weight", e.patches.kernel)
        if e.patches.bias is not None:
            weights.put("patch_embed.proj.bias", e.patches.bias)
        norms = {"patch_embed.pixel_norm": e.patches.norm, "patch_embed.norm": e.patch_norm, "norm_pre": e.norm_pre}
        for name, norm in norms.items():
            if norm is not None:
                weights.norm(name, norm)
        for at, block in enumerate(self.blocks):
            if parallel:
                weights.parallel_block(f"blocks.{at}", block[0])
            else:
                attention, mlp = block
                weights.block(f"blocks.{at}", attention, mlp, placed(e, attention.place), rotary)
        if h.norm is not None:
            weights.norm("norm", h.norm)
        if h.pool is not None:
            attention = h.pool.attention
            latent = fold(View(h.pool.latent, h.pool.latent.shape))
            d, low = D // attention.heads, is_low_precision(e, self.body, h)
            factor = 1.0 if is_usual(attention.scale, d, low=low) else attention.scale * d**0.5
            weights.pool("attn_pool", h.pool, latent.reshape(-1)[:D], factor)
        if h.pooled_norm is not None:
            weights.norm("fc_norm", h.pooled_norm)
        weights.heads(h)

    def _is_tokens(self, at: Expression) -> bool:
        """Whether a value is tokens, (B, N, D), and not their elements in another order."""
        return len(at.shape) == 3 and at.shape[0] == self.reader.batch

    def _stages(self) -> dict[str, str]:
        """The stages that are named values of the graph."""
        sums = self.body.sums if len(self.body.sums) == len(self.blocks) else self.body.sums[1::2]
        found: dict[str, Expression | None] = {"embed": self.body.embedding}
        found |= {f"blocks.{at}": sums[at] for at in range(len(self.blocks))}
        found["norm"] = self.head.normed
        values = {name: it.value for name, it in found.items() if it is not None and it.value and self._is_tokens(it)}
        if self.head.kind == "tokens":
            if self.output and self.head.norm is not None:
                values["norm"] = self.output
        elif self.head.output is not None and (self.head.output.value or not self.head.softmax):
            values["head"] = self.head.output.value if self.head.softmax else self.output
        return values


def _blocks(body: Body) -> Iterable[tuple[Branch, ...]]:
    """The branches of each block: attention and MLP, or one branch with both."""
    branches = body.branches
    if branches[0].attention is not None and branches[0].mlp is not None:
        for branch in branches:
            if branch.attention is None or branch.mlp is None:
                raise NotUnderstoodError(
                    f"The graph's {branch.place} is not a parallel block, but the first block is one."
                )
            yield (branch,)
        return
    if len(branches) % 2:
        raise NotUnderstoodError(
            f"The graph has {len(branches)} layers on its residual stream, where pairs were expected."
        )
    for first, second in zip(branches[::2], branches[1::2], strict=True):
        if first.attention is None or second.mlp is None or first.mlp is not None or second.attention is not None:
            raise NotUnderstoodError(f"The graph's {first.place} is not a block: expected attention, then an MLP.")
        places = [[norm is None for norm in branch.norms] for branch in (branches[0], first, second)]
        if not places[0] == places[1] == places[2]:
            raise NotUnderstoodError(f"The graph's {first.place} has its norms in other places than the first block.")
        yield first, second


def _backwards(outputs: Iterable[Any]) -> list[Expression]:
    """Every expression that the outputs depend on, the last one first."""
    seen: dict[int, Expression] = {}
    waiting = [value.expression for value in outputs if isinstance(value, View)]
    while waiting:
        at = waiting.pop()
        if at.number not in seen:
            seen[at.number] = at
            waiting += [view.expression for view in at.views]
    return [seen[number] for number in sorted(seen, reverse=True)]
