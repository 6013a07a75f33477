"""Which of the two forms of GELU a model runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from conversion.checkpoint import Checkpoint
from vit_spec import VitportError
from vit_spec.activation import Activation

ActivationChoice = Literal["keep", "erf", "tanh"]

GELUS: dict[ActivationChoice, Activation] = {"erf": "gelu", "tanh": "gelu_tanh"}
"""The two forms, which are often confused: their values differ by at most 4.7e-4."""


def with_activation(checkpoint: Checkpoint, choice: ActivationChoice) -> Checkpoint:
    """The same weights with another form of GELU, which changes the outputs a little.

    Args:
        checkpoint: any; its weights do not change.
        choice: ``erf``, ``tanh``, or ``keep`` for no change.

    Raises:
        VitportError: if the model's activation is not a GELU.
    """
    if choice == "keep":
        return checkpoint
    old = getattr(checkpoint.config, "activation", "the activation that is part of the family")
    if old == GELUS.get(choice):
        return checkpoint
    if choice not in GELUS or old not in GELUS.values():
        raise VitportError(
            f"activation={choice!r} cannot replace {old}: erf and tanh are the two forms of GELU, and keep leaves any "
            "activation as it is."
        )
    changed = replace(checkpoint, config=checkpoint.config.replace(activation=GELUS[choice]))
    return changed.changed(f"activation {GELUS[choice]} in place of {old}, with the weights as they are")
