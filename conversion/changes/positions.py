"""Which tokens the position table has rows for."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from conversion.checkpoint import Checkpoint
from vit_spec import Kind, Stage, VitportError, parameters

PositionChoice = Literal["keep", "prefix", "patch"]


def with_positions(checkpoint: Checkpoint, layout: PositionChoice) -> Checkpoint:
    """The same model with another layout of its position table; outputs do not change.

    Args:
        layout: ``prefix`` has a row for the class token and one for the distillation token, ``patch`` has rows for
            patches only; ``keep`` leaves the table as it is. A token without a row gets one of zeros. A row without a
            place is added to its token, as in the model's forward pass; which part of the sum was position is lost.

    Raises:
        VitportError: if the model has no position table, or the layout is unknown.
    """
    old = getattr(checkpoint.config, "pos_embed", "none")
    if layout in ("keep", old):
        return checkpoint
    if layout not in ("prefix", "patch"):
        raise VitportError(f"positions={layout!r} is unknown: choose one of keep, prefix, patch.")
    if old == "none":
        raise VitportError(f"The model has no position table to lay out as {layout!r}: leave --positions out.")
    config = checkpoint.config.replace(pos_embed=layout)
    before, after = (it.num_positioned_prefix_tokens for it in (checkpoint.config, config))
    embedding = [parameter for parameter in parameters(config) if parameter.stage is Stage.EMBED]
    (positions,) = (parameter.name for parameter in embedding if parameter.kind is Kind.TABLE)
    table = checkpoint.params[positions]  # (1, before + patches, D)
    params, folded = checkpoint.params, []
    first = 0
    # In the order of the sequence, and of the table's first rows.
    for name in (parameter.name for parameter in embedding if parameter.kind is Kind.TOKEN):
        token = params[name]  # (1, tokens, D)
        rows = slice(max(first, after), min(first + token.shape[1], before))
        if rows.start < rows.stop:
            params = params.replacing(name, _sum(token, table[:, rows], rows.start - first))
            folded.append(name)
        first += token.shape[1]
    zeros = np.zeros((1, max(after - before, 0), table.shape[2]), table.dtype)
    kept = [table[:, : min(before, after)], zeros, table[:, before:]]
    params = params.replacing(positions, np.concatenate(kept, axis=1))
    what = f"; added the rows of {', '.join(folded)} to the tokens" if folded else ""
    what += f"; rows of zeros before it: {after - before}" if after > before else ""
    return replace(checkpoint, config=config, params=params).changed(f"position table {layout} in place of {old}{what}")


def _sum(token: np.ndarray, rows: np.ndarray, first: int) -> np.ndarray:
    """Tokens (1, n, D) with rows (1, m, D) added from token ``first`` on, in float64, rounded to the tokens' dtype."""
    total = token.astype(np.float64)
    total[:, first : first + rows.shape[1]] += rows.astype(np.float64)
    return total.astype(token.dtype)
