"""What the users of a format take for granted, against what a model is."""

from __future__ import annotations

from conversion.changes.activation import GELUS, ActivationChoice
from conversion.checkpoint import Checkpoint
from conversion.format import Format
from conversion.source import OWN_RECORD
from vit_spec import VitportError


def check_assumed(checkpoint: Checkpoint, target: Format, activation: ActivationChoice | None) -> list[str]:
    """Where a file's readers run the other form of GELU unless they are told: the sentence that says so.

    Without a choice the file is not written if that would be news to its users: they had a file of another format,
    whose readers run the model's own form. It is no news where the format stays the same, nor where the config is
    vitport's own, of a model in memory or in a record that the new file carries on.

    Raises:
        VitportError: if the choice is the user's, and is not made.
    """
    own, assumed = checkpoint.config.activation, target.assumes.get("activation", checkpoint.config.activation)
    if own == assumed or not {own, assumed} <= set(GELUS.values()):
        return []
    told = f"which tells of {own} in config.json" if target.facts is not None else "which leaves the telling to you"
    if activation is None and not _is_no_news(checkpoint, target):
        change = next(choice for choice, form in GELUS.items() if form == assumed)
        raise VitportError(
            f"The weights run {own}, and readers of {target.name} run {assumed} unless they are told: choose by "
            f"activation (--activation) keep, {told}, or {change}, which changes the outputs."
        )
    if target.facts is not None:
        return []
    return [f"only vitport's own record tells of {own}: other readers of {target.name} run {assumed} unless told"]


def _is_no_news(checkpoint: Checkpoint, target: Format) -> bool:
    source = checkpoint.provenance
    own_words = source.format == "memory" or source.origins.get("activation") == OWN_RECORD
    return own_words or source.format == target.name
