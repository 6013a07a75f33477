"""Which tokens the position table has rows for."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from conversion.checkpoint import Checkpoint
from vit_spec import VitportError

PositionChoice = Literal["keep", "prefix", "patch"]

_TOKENS = ("cls_token", "dist_token", "reg_token")
"""In the order of the sequence, and of the table's first rows."""


def with_positions(checkpoint: Checkpoint, layout: PositionChoice) -> Checkpoint:
    """The same model with its position table laid out otherwise.

    Args:
        layout: ``prefix`` has a row for the class token and one for the distillation token, ``patch`` has rows for
            patches alone; ``keep`` leaves the table as it is. Rows of zeros are put in front where a token had none,
            which changes nothing. A row that has no place is added to its token, as the model itself would do it, and
            which part of the sum was position is lost.

    Raises:
        VitportError: if the model has no position table, or the layout is unknown.
    """
    old = checkpoint.config.pos_embed
    if layout in ("keep", old):
        return checkpoint
    if layout not in ("prefix", "patch"):
        raise VitportError(f"positions={layout!r} is unknown: choose one of keep, prefix, patch.")
    if old == "none":
        raise VitportError(f"The model has no position table to lay out as {layout!r}: leave --positions out.")
    config = checkpoint.config.replace(pos_embed=layout)
    before, after = (it.num_positioned_prefix_tokens for it in (checkpoint.config, config))
    table = checkpoint.params["pos_embed"]  # (1, before + patches, D)
    params, folded = checkpoint.params, []
    first = 0
    for name in (name for name in _TOKENS if name in params):
        token = params[name]  # (1, tokens, D)
        rows = slice(max(first, after), min(first + token.shape[1], before))
        if rows.start < rows.stop:
            params = params.replacing(name, _sum(token, table[:, rows], rows.start - first))
            folded.append(name)
        first += token.shape[1]
    zeros = np.zeros((1, max(after - before, 0), table.shape[2]), table.dtype)
    kept = [table[:, : min(before, after)], zeros, table[:, before:]]
    params = params.replacing("pos_embed", np.concatenate(kept, axis=1))
    what = f"; added the rows of {', '.join(folded)} to the tokens" if folded else ""
    what += f"; rows of zeros in front: {after - before}" if after > before else ""
    return replace(checkpoint, config=config, params=params).changed(f"position table {layout} in place of {old}{what}")


def _sum(token: np.ndarray, rows: np.ndarray, first: int) -> np.ndarray:
    """Tokens (1, n, D) with rows (1, m, D) added from token ``first`` on, in float64, rounded to the tokens' dtype."""
    total = token.astype(np.float64)
    total[:, first : first + rows.shape[1]] += rows.astype(np.float64)
    return total.astype(token.dtype)
