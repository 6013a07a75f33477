"""Config and canonical weights of a Swin Transformer whose layers were found in a graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from conversion.graph.graph import NotUnderstoodError
from conversion.graph.heads import taken
from conversion.graph.layers import Layers, Norm
from conversion.graph.patches import Patches
from conversion.graph.swin.attention import WindowAttention
from conversion.graph.swin.bias import network_of, table_of
from conversion.graph.swin.body import Branch, Merging, Stage
from conversion.graph.swin.head import Head
from conversion.graph.swin.rows import NONE
from conversion.graph.swin.windows import ORDERS, rule_of, windowing_of
from conversion.tensors.table import Tensor
from vit_spec import SwinConfig
from vit_spec.swin.config import PadOrder
from vit_spec.swin.windows import Windowing

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Patched:
    """Everything before the first block."""

    patches: Patches
    norm: Norm | None
    table: np.ndarray | None  # (N, D)


class Model:
    """Puts what was read under canonical names, and checks that it is one model.

    Args:
        patched: what goes into the first block.
        stages: in order.
        head: after the last.
        layers: shared by all readers of a graph.
        batch: images that the graph was followed with.

    Raises:
        NotUnderstoodError: if it is no Swin Transformer.
    """

    def __init__(self, patched: Patched, stages: tuple[Stage, ...], head: Head, layers: Layers, batch: int) -> None:
        self.patched, self.stages, self.head = patched, stages, head
        self.layers, self.batch = layers, batch
        self.notes: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.pretrained: list[tuple[int, int]] = []
        self.solved = self.doubled = 0
        self.itemsize = patched.patches.kernel.dtype.itemsize
        self.version = 2 if self._only("order of norms and layers", [it.after for it in self._branches()]) else 1
        self._check_blocks()
        self._embedding()
        self.config = self._config()
        if head.norm is not None:
            self._norm("norm", head.norm)
        if head.layer is not None:
            self._linear("head.fc", head.layer.kernel, head.layer.bias, biased=True)
        self._note()

    def _note(self) -> None:
        if self.doubled:
            self.notes.append(
                f"{self.doubled} blocks add the mask of shifted windows twice, -200 for -100: this model adds it once"
            )
        if self.solved:
            self.notes.append(
                f"solved for the first layers of {self.solved} networks of biases, of which the exporter kept the "
                "results alone: right to rounding"
            )
        if self.head.softmax:
            self.notes.append("set aside the softmax after the head: the model gives logits")
        if self.patched.patches.folded:
            self.notes.append(
                "folded the graph's arithmetic on pixels into the patch projection: images are given as the graph "
                "takes them"
            )

    def tensors(self) -> dict[str, Tensor]:
        """Canonical name → tensor."""
        found = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        return {name: Tensor(it.shape, it.dtype.newbyteorder("="), lambda it=it: it) for name, it in found.items()}

    def _branches(self) -> list[Branch]:
        return [branch for stage in self.stages for branch in stage.branches]

    def _only(self, what: str, found: list[T]) -> T:
        """The value that all layers share."""
        if any(value != found[0] for value in found):
            raise NotUnderstoodError(f"The graph has more than one {what}: {sorted(set(map(str, found)))[:3]}.")
        return found[0]

    def _check_blocks(self) -> None:
        for stage in self.stages:
            kinds = [branch.attention is not None for branch in stage.branches]
            if not kinds or kinds != [True, False] * (len(kinds) // 2):
                raise NotUnderstoodError(
                    "The graph has a stage whose layers are not attention within windows and MLP by turns."
                )

    def _embedding(self) -> None:
        p = self.patched
        self.arrays["patch_embed.proj.weight"] = p.patches.kernel
        bias = p.patches.bias
        self.arrays["patch_embed.proj.bias"] = (
            np.zeros(len(p.patches.kernel), p.patches.kernel.dtype) if bias is None else bias
        )
        if p.norm is not None:
            self._norm("patch_embed.norm", p.norm)
        if p.table is not None:
            self.arrays["absolute_pos_embed"] = p.table[None]

    def _config(self) -> SwinConfig:
        p, stages, version = self.patched, self.stages, self.version
        size, orders = p.patches.grid, set(ORDERS)
        observed: list[tuple[Windowing, Windowing | None]] = []
        for number, stage in enumerate(stages):
            if stage.merging is not None:
                self._merging(f"layers.{number}.downsample", stage.merging, size)
                size = (-(-size[0] // 2), -(-size[1] // 2))
            found = [self._attention(number, at, stage, size, orders) for at in range(len(stage.branches) // 2)]
            even = self._only(f"window in stage {number}", found[::2])
            odd = self._only(f"shift in stage {number}", found[1::2]) if found[1:] else None
            if any(even.shift):
                raise NotUnderstoodError(f"The graph shifts the windows of block 0 of stage {number}.")
            observed.append((even, odd))
        firsts = [stage.branches[0].attention for stage in stages]
        mlps = [branch.mlp for branch in self._branches() if branch.mlp is not None]
        blocks = [branch.norm for branch in self._branches()] + ([] if self.head.norm is None else [self.head.norm])
        outer = [it.merging.norm for it in stages if it.merging is not None] + ([] if p.norm is None else [p.norm])
        for norm in blocks + outer:
            if not norm.centred:
                raise NotUnderstoodError(f"The graph's {norm.place} does not subtract the mean, as LayerNorm does.")
        biased = [self._has_bias(it.attention) for it in self._branches() if it.attention is not None]
        ratios = [mlp.first.kernel.shape[1] / mlp.first.kernel.shape[0] for mlp in mlps]
        config = SwinConfig().replace(
            version=version,
            image_size=p.patches.image_size,
            patch_size=p.patches.kernel.shape[2],
            in_channels=p.patches.kernel.shape[1],
            num_classes=0 if self.head.layer is None else self.head.layer.kernel.shape[1],
            embed_dim=len(p.patches.kernel),
            depths=tuple(len(stage.branches) // 2 for stage in stages),
            num_heads=tuple(it.heads for it in firsts if it is not None),
            window_sizes=tuple(even.window for even, _ in observed),
            pretrained_window_sizes=tuple(self.pretrained) if version == 2 else 0,
            mlp_ratio=self._only("width of MLPs", ratios),
            activation=self._only("activation", [mlp.activation for mlp in mlps]),
            qkv_bias=any(biased),
            norm_eps=self._only("epsilon", [self._decimal(it) for it in blocks]),
            patch_norm_eps=self._only("epsilon", [self._decimal(it) for it in outer]) if outer else 1e-5,
            patch_norm=p.norm is not None,
            absolute_pos_embed=p.table is not None,
            final_norm=self.head.norm is not None,
        )  # fmt: skip
        return rule_of(config, tuple(observed), orders)

    def _merging(self, at: str, merging: Merging, size: tuple[int, int]) -> None:
        """Columns in the order (row, column) = 00, 10, 01, 11, whatever order the graph has."""
        if merging.after != (self.version == 2):
            raise NotUnderstoodError(
                f"The graph's {merging.place} normalises merged patches as the other version does."
            )
        (rows, columns), C = size, merging.layer.kernel.shape[0] // 4
        tokens = np.pad(
            np.arange(rows * columns).reshape(size), ((0, rows % 2), (0, columns % 2)), constant_values=NONE
        )
        corners = np.stack([tokens[row::2, column::2].reshape(-1) for column in (0, 1) for row in (0, 1)], -1)
        expected = corners[..., None] * C + np.arange(C)
        expected = np.where(corners[..., None] < 0, NONE, expected).reshape(len(corners), 4 * C)
        found = merging.order[: len(merging.order) // self.batch]
        whole = int(np.argmax((expected >= 0).all(-1)))
        own = {int(number): column for column, number in enumerate(expected[whole])}
        place = [own.get(int(number), 0) for number in found[whole]] if found.shape == expected.shape else []
        kernel, norm = merging.layer.kernel, merging.norm
        if sorted(place) != list(range(4 * C)) or not np.array_equal(found, expected[:, place]):
            raise NotUnderstoodError(f"The graph's {merging.place} merges other tokens than 2 x 2 neighbours.")
        order = np.argsort(place)
        if not np.array_equal(order, np.arange(4 * C)):
            self.notes.append(f"put the columns of {at} into the order of Microsoft's code")
        self._norm(f"{at}.norm", norm, None if merging.after else order)
        self.arrays[f"{at}.reduction.weight"] = kernel[order].T

    def _attention(
        self, stage: int, block: int, found: Stage, size: tuple[int, int], orders: set[PadOrder]
    ) -> Windowing:
        """Puts one block's weights, and gives its windows."""
        first, second = found.branches[2 * block : 2 * block + 2]
        at, attention = f"layers.{stage}.blocks.{block}", first.attention
        assert attention is not None and second.mlp is not None
        tokens = attention.query.tokens.reshape(self.batch, -1, attention.query.tokens.shape[-1])
        N = size[0] * size[1]
        steps = np.where(tokens[:1] < 0, 0, np.arange(self.batch)[:, None, None] * N)
        if not np.array_equal(tokens, tokens[:1] + steps):
            raise NotUnderstoodError(f"The graph's {attention.place} mixes images of a batch.")
        windowing, fitting = windowing_of(tokens[0], size, attention.place)
        orders &= set(fitting)
        back = attention.query.tokens.reshape(-1)[first.taken]
        if not np.array_equal(back, np.arange(self.batch * N)):
            raise NotUnderstoodError(f"The graph's {first.place} adds what was computed for other tokens.")
        self._norm(f"{at}.norm1", first.norm)
        self._norm(f"{at}.norm2", second.norm)
        self._scores(f"{at}.attn", stage, attention, windowing)
        kernel = first.out.kernel
        self._linear(f"{at}.attn.proj", kernel[np.argsort(attention.order)], first.out.bias, biased=True)
        hidden, columns = second.mlp.first, second.mlp.columns
        width = hidden.kernel.shape[1]
        chosen = np.arange(width) if columns is None else columns
        self._linear(f"{at}.mlp.fc1", taken(hidden.kernel, chosen), hidden.bias, biased=True)
        self._linear(f"{at}.mlp.fc2", second.mlp.second.kernel, second.mlp.second.bias, biased=True)
        return windowing

    def _scores(self, at: str, stage: int, attention: WindowAttention, windowing: Windowing) -> None:
        q, k, v = attention.query, attention.key, attention.value
        dtype = q.kernel.dtype
        self.arrays[f"{at}.qkv.weight"] = np.concatenate([it.kernel.T for it in (q, k, v)])
        biases = [np.zeros(it.kernel.shape[1], dtype) if it.bias is None else it.bias for it in (q, k, v)]
        table, twice = table_of(attention, windowing, self.itemsize)
        self.doubled += twice
        if q.unit != (self.version == 2):
            raise NotUnderstoodError(f"The graph's {attention.place} has norms of one version and scores of the other.")
        scale, heads = attention.scale, attention.heads
        near = 1e-2 if self.itemsize == 2 else 1e-5
        if self.version == 1:
            if np.abs(scale * (q.kernel.shape[1] // heads) ** 0.5 - 1).max() > near:
                raise NotUnderstoodError(
                    f"The graph's {attention.place} scales scores by {scale}, where one over the root of the heads' "
                    "width was expected."
                )
            if self._has_bias(attention):
                self.arrays[f"{at}.qkv.bias"] = np.concatenate(biases)
            self.arrays[f"{at}.relative_position_bias_table"] = table.astype(dtype)
            return
        if biases[1].any():
            raise NotUnderstoodError(f"The graph's {attention.place} gives keys a bias, which version 2 does not.")
        if self._has_bias(attention):
            self.arrays[f"{at}.q_bias"], self.arrays[f"{at}.v_bias"] = biases[0], biases[2]
        scale = np.broadcast_to(scale, heads)
        if scale.min() <= 0 or scale.max() > 100 * (1 + near):
            raise NotUnderstoodError(f"The graph's {attention.place} scales cosines by {scale}, up to 100 expected.")
        logarithm = np.minimum(np.log(scale), math.log(100.0))
        self.arrays[f"{at}.logit_scale"] = logarithm.reshape(heads, 1, 1).astype(dtype)
        network = network_of(attention, windowing, table, self.layers)
        self._linear(f"{at}.cpb_mlp.0", network.first, network.bias, biased=True)
        self._linear(f"{at}.cpb_mlp.2", network.second, None, biased=False)
        self.solved += network.solved
        if len(self.pretrained) == stage:
            self.pretrained.append(network.pretrained)
        elif self.pretrained[stage] != network.pretrained:
            raise NotUnderstoodError(f"The graph's stage {stage} scales the offsets of its blocks differently.")

    @staticmethod
    def _has_bias(attention: WindowAttention) -> bool:
        return any(it.bias is not None and it.bias.any() for it in (attention.query, attention.value, attention.key))

    def _linear(self, name: str, kernel: np.ndarray, bias: np.ndarray | None, *, biased: bool) -> None:
        self.arrays[f"{name}.weight"] = kernel.T
        if biased:
            self.arrays[f"{name}.bias"] = np.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias

    def _norm(self, name: str, norm: Norm, order: np.ndarray | None = None) -> None:
        width = norm.x.shape[-1]
        like = next((part.dtype for part in (norm.weight, norm.bias) if part is not None), np.dtype(np.float32))
        weight = np.ones(width, like) if norm.weight is None else np.broadcast_to(norm.weight.reshape(-1), (width,))
        bias = np.zeros(width, like) if norm.bias is None else np.broadcast_to(norm.bias.reshape(-1), (width,))
        if order is not None:
            weight, bias = weight[order], bias[order]
        self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"] = weight, bias

    def _decimal(self, norm: Norm) -> float:
        """The shortest decimal that rounds to the stored epsilon, as an author would write it."""
        rounded: Any = np.float16 if self.itemsize == 2 and norm.eps > 1e-7 else np.float32
        return float(str(rounded(norm.eps)))
