"""The periods of rotary positions: a file's own, or those of theta."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from conversion.checkpoint import Checkpoint
from vit_spec import VitportError
from vit_spec.vit.rotary import DinoV3Rotary

PeriodChoice = Literal["keep", "theta"]


def with_periods(checkpoint: Checkpoint, choice: PeriodChoice) -> Checkpoint:
    """The same weights with the periods that theta gives, which changes the outputs a little.

    Args:
        checkpoint: any; its weights do not change.
        choice: ``theta``, or ``keep`` for no change.

    Raises:
        VitportError: if the model has no periods of its own, or the choice is unknown.
    """
    if choice == "keep":
        return checkpoint
    if choice != "theta":
        raise VitportError(f"periods={choice!r} is unknown: choose keep or theta.")
    rotary = getattr(checkpoint.config, "rotary", None)
    if not isinstance(rotary, DinoV3Rotary) or rotary.periods is None:
        raise VitportError("The model has no periods of rotary positions but theta's: leave --periods out.")
    usual = checkpoint.config.replace(rotary=replace(rotary, periods=None))
    return replace(checkpoint, config=usual).changed(
        f"periods of theta {rotary.theta:g} in place of the file's, with the weights as they are"
    )
