"""Rules that several formats of Swin share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion.formats.swin.buffers import Buffered
from conversion.tensors.rules import Rule, Rules, module
from conversion.tensors.table import TensorTable
from conversion.tensors.transforms import COPY, Transform
from vit_spec import Config, SwinConfig

BLOCK = "layers.{s}.blocks.{b}"
MODULES = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
CONVENTIONS = {"activation": "gelu", "norm_eps": 1e-5, "patch_norm_eps": 1e-5}
"""Fixed by every code of Swin but transformers'."""
MASK_TOKEN = "a stand-in for hidden patches in masked pre-training, in no forward pass"
DECODER = "the layer that paints hidden patches in masked pre-training"


def pure(foreign: str, *names: str) -> tuple[Rule, ...]:
    """Rules for parts of a block that the format names as the canonical names do.

    Args:
        foreign: what the format calls a block.
        names: modules with weight and bias.
    """
    return tuple(rule for name in names for rule in module(f"{BLOCK}.{name}", f"{foreign}.{name}"))


def tables(foreign: str) -> tuple[Rule, ...]:
    """Rules for what is not a layer in an attention: version 1's table, version 2's scale, biases and network.

    Args:
        foreign: what the format calls a block's attention.
    """
    leaves = (
        "relative_position_bias_table", "logit_scale", "q_bias", "v_bias", "cpb_mlp.0.weight", "cpb_mlp.0.bias",
        "cpb_mlp.2.weight",
    )  # fmt: skip
    return tuple(Rule(f"{BLOCK}.attn.{leaf}", f"{foreign}.{leaf}") for leaf in leaves)


def merging(foreign: str, norm: Transform = COPY, reduction: Transform = COPY) -> tuple[Rule, ...]:
    """Rules for the patch merging that leads to stage ``{s+1}``.

    Args:
        foreign: what the format calls it, with ``{s}`` for the stage before it or ``{s+1}``.
    """
    at = "layers.{s+1}.downsample"
    norms = (Rule(f"{at}.norm.{leaf}", f"{foreign}.norm.{leaf}", norm) for leaf in ("weight", "bias"))
    return (*norms, Rule(f"{at}.reduction.weight", f"{foreign}.reduction.weight", reduction))


@dataclass(frozen=True)
class Unfolded:
    """Columns of patch merging as ``torch.nn.Unfold`` lays them out, which OpenMMLab's code runs.

    Canonical columns are four blocks of C for the neighbours at (row, column) 00, 10, 01 and 11. Unfold has C groups of
    four, in the order 00, 01, 10, 11: its column ``4 c + 2 row + column``.
    """

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [_corners(array.reshape(*array.shape[:-1], -1, 4).swapaxes(-1, -2)) for array in arrays]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        del config
        return [
            np.ascontiguousarray(
                array.reshape(*array.shape[:-1], 4, -1)[..., [0, 2, 1, 3], :].swapaxes(-1, -2)
            ).reshape(array.shape)
            for array in arrays
        ]  # fmt: skip


def _corners(blocks: np.ndarray) -> np.ndarray:
    """(…, 4, C), the neighbours in the order of rows -> (…, 4 C), in the order of columns."""
    return np.ascontiguousarray(blocks[..., [0, 2, 1, 3], :]).reshape(*blocks.shape[:-2], -1)


@dataclass(frozen=True)
class PositionMap:
    """The format has the position table as a map (1, E, rows, columns), or as the canonical table."""

    def to_canonical(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        (table,) = arrays
        return [table if table.ndim == 3 else table.reshape(*table.shape[:2], -1).transpose(0, 2, 1)]

    def from_canonical(self, arrays: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
        assert isinstance(config, SwinConfig)
        (table,) = arrays
        return [table.transpose(0, 2, 1).reshape(1, -1, *config.map_sizes[0])]


class StageNorms(Rules):
    """Rules of a format that numbers the norms of all stages alike, also the last one's, which is canonical ``norm``.

    Args:
        rules: of all other parameters.
        norms: what the format calls the norm of stage ``{s}``.
        written: the models whose last norm is written so; the others need a rule for it.
        **options: of the class beside this one (:class:`BufferedStageNorms`).
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        norms: str,
        written: Callable[[SwinConfig], bool] = lambda config: True,
        **options: Any,
    ) -> None:
        super().__init__((*rules, *module("stage_norms.{s}", norms)), **options)
        self._written = written

    def read(self, table: TensorTable) -> tuple[TensorTable, list[str]]:
        canonical, unknown = super().read(table)
        stages = [int(name.split(".")[1]) for name in canonical if name.startswith("layers.")]
        last = f"stage_norms.{max(stages, default=0)}."
        return canonical.renamed(
            lambda name: f"norm.{name.removeprefix(last)}" if name.startswith(last) else name
        ), unknown

    def write(self, table: TensorTable, config: Config) -> TensorTable:
        assert isinstance(config, SwinConfig)
        if self._written(config):
            last = f"stage_norms.{config.num_stages - 1}."
            table = table.renamed(lambda name: last + name.removeprefix("norm.") if name.startswith("norm.") else name)
        return super().write(table, config)


class BufferedStageNorms(StageNorms, Buffered):
    """:class:`StageNorms` of a format whose files hold :class:`Buffered` arrays too; it takes the arguments of both."""
