"""A plain ViT made of the parts that a file names, run in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conversion.second_reading import Candidates
from conversion.second_reading.vit import PartNames
from vit_parity.capture import Activations
from vit_parity.semantics.attention import DIFFERENCE_EPS, FACTORS, Attention, Difference
from vit_parity.semantics.facts import Facts
from vit_parity.semantics.layers import (
    ACTIVATIONS,
    Activation,
    AttentionPool,
    Block,
    BranchedBlock,
    Layer,
    Linear,
    ParallelBlock,
    same,
)
from vit_parity.semantics.positions import Turns, network_bias, relative_bias, sincos
from vit_parity.semantics.readers import TorchReader, needed
from vit_spec import VitportError


class Semantics:
    """One model as its file's own names describe it. Each block is read when it runs."""

    def __init__(self, reader: TorchReader, names: PartNames, facts: Facts) -> None:
        self.reader = reader
        self.names = names
        self.facts = facts
        self.act = ACTIVATIONS[facts.activation]

    def run(self, images: np.ndarray) -> Activations:
        """(B, H, W, C) -> ``embed``, ``blocks.i``, ``norm`` (B, N, D) and ``head`` (B, K), in float64."""
        x, prefix, grid = self._embed(images.astype(np.float64))
        self.grid, self.prefix = grid, prefix
        turns = None if self.facts.rotary is None else Turns(self.facts.rotary, grid, prefix)
        found = {"embed": x}
        for at, block in enumerate(self._blocks(turns)):
            x = found[f"blocks.{at}"] = block(x)
        x = found["norm"] = self._norm(self.names.norm)(x)
        found["head"] = self._head(x, 0 if self.facts.pool_prefix else prefix)
        return found

    def _embed(self, images: np.ndarray) -> tuple[np.ndarray, int, tuple[int, int]]:
        """Tokens (B, N, D), how many of them precede the patches, and rows and columns of patches."""
        n, r = self.names, self.reader
        patches = needed(r.convolution(n.patches), n.patches)
        B, H, W, C = images.shape
        side = round((patches.kernel.shape[0] / C) ** 0.5)
        whole = images[:, : H - H % side, : W - W % side]  # a stride of one patch leaves the rest unread
        cut = whole.reshape(B, H // side, side, W // side, side, C).transpose(0, 1, 3, 2, 4, 5)
        pixels = self._norm(n.pixel_norm)(cut.reshape(B, -1, side * side * C))
        body = self._norm(n.patch_norm)(patches(pixels))  # (B, patches, D)
        tokens = [array.reshape(-1, body.shape[-1]) for names in n.tokens if (array := r.array(names)) is not None]
        front = np.concatenate(tokens) if tokens else np.zeros((0, body.shape[-1]))  # (prefix, D)
        table = r.array(n.positions)
        if self.facts.sincos is not None and table is None:
            body = body + sincos(self.facts.sincos, H // side, W // side, body.shape[-1])
        if table is not None:
            rows = table.reshape(-1, table.shape[-1])
            placed = len(rows) - body.shape[1]  # how many of the first tokens have rows
            body = body + rows[placed:]
            front = np.concatenate([front[:placed] + rows[:placed], front[placed:]])
        x = np.concatenate([np.broadcast_to(front, (B, *front.shape)), body], axis=1)
        return self._norm(n.norm_pre)(x), len(front), (H // side, W // side)

    def _blocks(self, turns: Turns | None) -> Iterator[Layer]:
        dotted_templates = [name.replace("/", ".") for name in self.names.block]
        patterns = [re.escape(name).replace(r"\{i\}", r"(\d+)") + r"\." for name in dotted_templates]
        dotted = [name.replace("/", ".") for name in self.reader.arrays]
        for pattern, template in zip(patterns, self.names.block, strict=True):
            numbers = {int(match[1]) for name in dotted if (match := re.match(pattern, name))}
            if numbers:
                return (self._block(template.format(i=at), turns) for at in range(max(numbers) + 1))
        raise VitportError(f"The file has no blocks named {' or '.join(self.names.block)}.")

    def _block(self, at: str, turns: Turns | None) -> Layer:
        n, r = self.names, self.reader
        if (fused := r.linear(_at(at, n.fused))) is not None:
            return self._parallel_block(at, fused)
        attentions, mlps = (self._branches(f"{at}.{name}") for name in n.branches or ("", ""))
        if attentions:
            return BranchedBlock(
                [self._branch(own, self._attention(own, turns)) for own in attentions],
                [self._branch(own, self._mlp(own)) for own in mlps],
            )
        return Block(
            self._norm(_at(at, n.norm1)),
            self._attention(at, turns),
            self._factor(_at(at, n.scale1)),
            self._norm(_at(at, n.norm2)),
            self._mlp(at),
            self._factor(_at(at, n.scale2)),
            self.facts.order,
        )

    def _branches(self, template: str) -> list[str]:
        """The branches of a block that the file has."""
        pattern = re.escape(template.replace("/", ".")).replace(r"\{j\}", r"(\d+)") + r"\."
        dotted = (name.replace("/", ".") for name in self.reader.arrays)
        numbers = {int(match[1]) for name in dotted if "{j}" in template and (match := re.match(pattern, name))}
        return [template.format(j=at) for at in sorted(numbers)]

    def _branch(self, at: str, layer: Any) -> tuple[Layer, Any, np.ndarray | float]:
        named = self.names.branch
        return self._norm(_at(at, named["norm"])), layer, self._factor(_at(at, named["scale"]))

    def _difference(self, at: str) -> Difference | None:
        """What makes attention differential, by the number of the block that its name holds."""
        factors = [self.reader.array(_at(at, self.names.inside.get(f"factor {name}", ()))) for name in FACTORS]
        q1, k1, q2, k2 = factors
        if q1 is None or k1 is None or q2 is None or k2 is None:
            return None
        norm = self.reader.norm(_at(at, self.names.inside["difference"]), DIFFERENCE_EPS, centred=False)
        return Difference(q1, k1, q2, k2, norm, int(re.findall(r"\d+", at)[0]))

    def _attention(self, at: str, turns: Turns | None) -> Attention:
        n, r = self.names, self.reader
        query, key, value = self._parts(at, n.qkv, n.query, n.key, n.value)
        if (mask := r.array(_at(at, n.inside.get("bias mask", ())))) is not None:
            masks = np.split(mask, 3)
            query, key, value = (
                replace(layer, bias=layer.bias * part) for layer, part in zip((query, key, value), masks, strict=True)
            )
        query, value = self._biased(at, query, "query bias"), self._biased(at, value, "value bias")
        if turns is not None:
            turns = replace(turns, frequencies=self._frequencies(at))
        inner = {
            "bias": self._relative_bias(at),
            "turn": same if turns is None else turns,
            "query_norm": self._inner(at, "query"),
            "key_norm": self._inner(at, "key"),
            "norm": self._inner(at, "heads"),
            "difference": self._difference(at),
        }
        heads = r.heads(_at(at, n.query)) or self.facts.heads
        scale = self._scale(heads, query, at) if self.facts.scale is None else self.facts.scale
        out = needed(r.linear(_at(at, n.out)), _at(at, n.out))
        return Attention(query, key, value, out, heads, scale, **inner)

    def _mlp(self, at: str) -> Mlp:
        n, r = self.names, self.reader
        second = needed(r.linear(_at(at, n.second)), _at(at, n.second))
        norm = self._inner(at, "hidden")
        if (gate := r.linear(_at(at, n.gate))) is not None:
            return Mlp(needed(r.linear(_at(at, n.gated)), _at(at, n.gated)), second, self.act, gate, norm)
        first = needed(r.linear(_at(at, n.first)), _at(at, n.first))
        width = second.kernel.shape[0]
        if first.kernel.shape[1] == 2 * width:
            gate, first = first.split([width, width])
            return Mlp(first, second, self.act, gate, norm)
        return Mlp(first, second, self.act, norm=norm)

    def _parallel_block(self, at: str, fused: Linear) -> Layer:
        n, r = self.names, self.reader
        joint = r.linear(_at(at, n.inside.get("joint out", ())))
        if joint is not None:
            D = joint.kernel.shape[1]
            out, mlp_out = Linear(joint.kernel[:D], joint.bias), Linear(joint.kernel[D:])
        else:
            out, mlp_out = (needed(r.linear(_at(at, names)), _at(at, names)) for names in (n.out, n.second))
        M, D = mlp_out.kernel.shape
        hidden, query, key, value = fused.split([M, D, D, D])
        if (bias := r.array(_at(at, n.fused_bias))) is not None:
            hidden = Linear(hidden.kernel, bias)
        norms = (self._inner(at, "query"), self._inner(at, "key"))
        heads = self.facts.heads
        scale = self._scale(heads, query, at) if self.facts.scale is None else self.facts.scale
        attention = Attention(query, key, value, out, heads, scale, *norms, difference=self._difference(at))
        norm, factor = self._norm(_at(at, n.norm1)), self._factor(_at(at, n.scale1))
        return ParallelBlock(norm, hidden, attention, mlp_out, self.act, factor)

    def _head(self, x: np.ndarray, prefix: int) -> np.ndarray:
        """Tokens (B, N, D) -> (B, K), or the pooled vector if there is no head."""
        n, r = self.names, self.reader
        norm = self._norm(n.fc_norm)
        if (distilled := r.linear(n.head_dist)) is not None:
            tokens = norm(x[:, :2])
            return 0.5 * (needed(r.linear(n.head), n.head)(tokens[:, 0]) + distilled(tokens[:, 1]))
        if self.facts.distilled:
            return norm(x[:, :2]).mean(axis=1)
        y = norm(self._pool(x, prefix))
        if (hidden := r.linear(n.pre_logits)) is not None:
            y = np.tanh(hidden(y))
        if (matrix := r.array(n.projection)) is not None:
            return y @ matrix
        head = r.linear(n.head)
        return y if head is None else head(y)

    def _pool(self, x: np.ndarray, prefix: int) -> np.ndarray:
        pools: dict[str, Callable[[], np.ndarray]] = {
            "token": lambda: x[:, 0],
            "avg": lambda: x[:, prefix:].mean(axis=1),
            "token_avg": lambda: np.concatenate([x[:, 0], x[:, prefix:].mean(axis=1)], axis=-1),
            "map": lambda: self._attention_pool()(x[:, prefix:]),
        }
        return pools[self.facts.pool]()

    def _attention_pool(self) -> AttentionPool:
        n, r = self.names, self.reader
        latent = r.array(n.pool_latent)
        if latent is None:
            raise VitportError(f"The file has none of {', '.join(n.pool_latent)}: it cannot be run by its own names.")
        latent = latent.reshape(-1, latent.shape[-1])
        if (together := r.linear(n.pool_qkv)) is not None:
            query, key, value = together.split([together.kernel.shape[0]] * 3)
        else:
            plain = Linear(np.eye(latent.shape[-1]))  # the learned query itself
            query = needed(r.linear(n.pool_query), n.pool_query) if n.pool_query else plain
            both = r.linear(n.pool_key_value)
            parts = both.split([both.kernel.shape[1] // 2] * 2) if both is not None else None
            key, value = parts or (needed(r.linear(names), names) for names in (n.pool_key, n.pool_value))
        heads = r.heads(n.pool_query) or self.facts.pool_heads or self.facts.heads
        out = needed(r.linear(n.pool_out), n.pool_out)
        attention = Attention(query, key, value, out, heads, self._scale(heads, query))
        mlp: Layer = np.zeros_like
        if n.pool_first:
            first, second = (needed(r.linear(names), names) for names in (n.pool_first, n.pool_second))
            mlp = Mlp(first, second, self.act)
        return AttentionPool(latent, attention, self._norm(n.pool_norm), mlp)

    def _parts(self, at: str, joint: Candidates, *each: Candidates) -> list[Linear]:
        if (together := self.reader.linear(_at(at, joint))) is not None:
            return together.split([together.kernel.shape[1] // len(each)] * len(each))
        return [needed(self.reader.linear(_at(at, names)), _at(at, names)) for names in each]

    def _relative_bias(self, at: str) -> np.ndarray | float:
        """A block's own, or that of all blocks."""
        layers = (self._named(at, f"offsets' {which} layer") for which in ("first", "second"))
        first, second = (self.reader.linear(names) for names in layers)
        if first is not None and second is not None:
            return network_bias(first, second, self.grid, self.prefix)
        table = self.reader.array(self._named(at, "offsets"))
        return 0.0 if table is None else relative_bias(table, self.grid)

    def _named(self, at: str, part: str) -> Candidates:
        """What a block may call a part of its own, then what all blocks may."""
        return (*_at(at, self.names.inside.get(part, ())), *self.names.shared.get(part, ()))

    def _frequencies(self, at: str) -> np.ndarray | None:
        """A block's own, or its share of those of all blocks."""
        if (whole := self.reader.array(self.names.frequencies)) is not None:
            return whole[:, int(at.rpartition(".")[2])]
        return self.reader.array(_at(at, self.names.inside.get("frequencies", ())))

    def _biased(self, at: str, layer: Linear, name: str) -> Linear:
        """The layer with a bias that is stored apart from it."""
        bias = self.reader.array(_at(at, self.names.inside.get(name, ())))
        return layer if bias is None else replace(layer, bias=bias)

    def _scale(self, heads: int, query: Linear, at: str = "") -> float:
        halves = 2 if at and self._difference(at) is not None else 1
        return float((query.kernel.shape[1] // heads // halves) ** -0.5)

    def _norm(self, names: Candidates) -> Layer:
        return self.reader.norm(names, self.facts.eps, self.facts.centred) or same

    def _inner(self, at: str, name: str) -> Layer:
        """The norm inside attention or MLP of that name (``PartNames.inside``)."""
        return self._norm(_at(at, self.names.inside.get(name, ())))

    def _factor(self, names: Candidates) -> np.ndarray | float:
        factor = self.reader.array(names)
        return 1.0 if factor is None else factor


def _at(block: str, names: Candidates) -> Candidates:
    return tuple(f"{block}.{name}" for name in names)


@dataclass(frozen=True)
class Mlp:
    """``second(act(first(x)))``, gated where there is a gate (Shazeer 2020, section 2)."""

    first: Linear
    second: Linear
    act: Activation
    gate: Linear | None = None
    norm: Layer = same
    """Before ``second`` (Shleifer et al. 2021)."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        hidden = self.act(self.first(x)) if self.gate is None else self.act(self.gate(x)) * self.first(x)
        return self.second(self.norm(hidden))
