"""The two sides of a comparison: models that ran, as they are and in float64, or captures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_parity.capture import Capture
from vit_parity.capture_file import load_capture
from vit_parity.porting.capture import as_capture, model_of
from vit_parity.porting.stages import Key, Model, Observed, output_key
from vit_spec import VitportError


@dataclass(frozen=True)
class Side:
    """A model that ran, or a capture."""

    capture: Capture
    model: Model | None
    plain: Observed
    wide: Observed | None
    """In float64, where the model can."""

    @property
    def best(self) -> Observed:
        """The most exact pass."""
        return self.wide or self.plain


def sides_of(a: Any, b: Any, inputs: Any, inputs_b: Any) -> tuple[Side, Side]:
    """Run both. Where B fails on images (B, C, H, W), it is given (B, H, W, C).

    Raises:
        VitportError: if a model cannot run.
    """
    first = _ran(a, inputs)
    given = inputs if inputs_b is None else inputs_b
    try:
        second = _ran(b, given)
    except VitportError:
        moved = None if inputs_b is not None else _channels_last(given)
        if moved is None:
            raise
        second = _ran(b, moved)
    return first, second


def _ran(model: Any, inputs: Any) -> Side:
    if isinstance(model, (str, Path)) and str(model).endswith((".npz", ".safetensors")):
        model = load_capture(Path(model))
    if isinstance(model, Capture):
        values: dict[Key, np.ndarray] = {output_key(name): array for name, array in model.activations.items()}
        return Side(model, None, Observed(values), None)
    if inputs is None:
        raise VitportError("compare needs the models' inputs: compare(a, b, inputs=x).")
    made = model_of(model, inputs)
    plain = made.run()
    try:
        wide = made.run(wide=True)
    except VitportError:  # a graph, or an operation that has no float64
        wide = None
    return Side(as_capture(made.title, plain, inputs, made.facts), made, plain, wide)


def _channels_last(inputs: Any) -> Any:
    """Images (B, C, H, W) as (B, H, W, C); ``None`` if there are none."""
    if isinstance(inputs, (tuple, list)):
        moved = [_channels_last(entry) for entry in inputs]
        return tuple(entry if it is None else it for entry, it in zip(inputs, moved, strict=True)) if any(
            it is not None for it in moved) else None  # fmt: skip
    if isinstance(inputs, dict):
        moved = {name: _channels_last(entry) for name, entry in inputs.items()}
        return {name: inputs[name] if it is None else it for name, it in moved.items()} if any(
            it is not None for it in moved.values()) else None  # fmt: skip
    if getattr(inputs, "ndim", 0) != 4:
        return None
    return np.moveaxis(np.asarray(inputs), 1, -1)
