"""Which model a table of tensors is: what shapes show, then what the file says, then what the caller names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conversion.identify.vit import facts_from_shapes
from conversion.tensors.table import Shapes
from vit_spec import Model, ViTConfig, VitportError, list_models, parameters

NEVER_GUESSED = ("num_heads", "activation", "norm_eps", "pool", "norm")
"""Facts that change the output and that no shape shows: somebody must have told them."""


@dataclass(frozen=True)
class Fact:
    """A value of a ViTConfig field, and in words who told it."""

    value: Any
    origin: str


def resolve_config(
    shapes: Shapes, told: Mapping[str, Fact], named: ViTConfig | None, named_by: str
) -> tuple[ViTConfig, dict[str, str]]:
    """The model's config, and for each field who told it.

    Args:
        shapes: canonical name → shape.
        told: ViTConfig fields that the file itself states.
        named: the config that the caller named, and ``named_by``, in words, how.

    Raises:
        VitportError: if a fact that must not be guessed was told by nobody, with the named models that fit.
    """
    known = (dataclasses.asdict(named) if named else {}) | {name: fact.value for name, fact in told.items()}
    shown = facts_from_shapes(shapes, known)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for field in dataclasses.fields(ViTConfig):
        name = field.name
        if name in shown and not (name in known and known[name] == shown[name]):
            values[name], origins[name] = shown[name], "the tensors' shapes"
        elif name in told:
            values[name], origins[name] = told[name].value, told[name].origin
        elif named:
            values[name], origins[name] = getattr(named, name), named_by
        elif name in shown:
            values[name], origins[name] = shown[name], "the tensors' shapes"
    untold = [name for name in NEVER_GUESSED if name not in values]
    if untold:
        raise VitportError(
            f"The file does not say its {', '.join(untold)}, and shapes do not show them: name the model "
            f"(--model, or the first argument of create_model){_candidates(shapes)}."
        )
    return ViTConfig.from_dict(values), origins


def _candidates(shapes: Shapes) -> str:
    def body(table: Shapes) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in table.items() if name.partition(".")[0] not in _VARIABLE}

    mine = body(shapes)
    fitting = [model.name for model in list_models() if body(_shapes(model)) == mine]
    return f"; these fit: {', '.join(fitting)}" if fitting else "; none of the registered models has these shapes"


_VARIABLE = {"head", "head_dist", "pre_logits", "pos_embed"}
"""Parts that fine-tuning changes without making another model."""


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {parameter.name: parameter.shape for parameter in parameters(model.config)}
