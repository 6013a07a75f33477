"""What a pass of any model shows: the arrays that go into its modules and come out of them, in order.

A stage is a module's call, or a tagged array. Its name is the module's path (``encoder.layers.0.norm1``); a second call
of one module is ``name#2``, the step of a scan ``name[3]``, and the whole model :data:`ROOT`. A stage has slots:
``<0``, ``<1`` … are the arrays among its arguments, ``>0``, ``>1`` … those that it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

ROOT = "output"
"""The stage of the whole model."""
Key = tuple[str, str]
"""Name of a stage, and one of its slots."""
Values = dict[Key, np.ndarray]


@dataclass(frozen=True)
class Observed:
    """One pass of a model."""

    values: Values
    """In the order of computation: a stage's inputs when it is entered, its outputs when it is left."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Stage → class of its module; a tag has none."""

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """Stage → what it returns, in the order of computation; floating-point arrays only."""
        named = ((named_output(key), array) for key, array in self.values.items() if key[1][0] == ">")
        return {name: array for name, array in named if is_float(array) and array.ndim and array.size}

    def inputs(self, stage: str) -> dict[Key, np.ndarray]:
        """A stage's arguments that are floating-point arrays."""
        return {
            key: array
            for key, array in self.values.items()
            if key[0] == stage and key[1][0] == "<" and is_float(array) and array.size > 1
        }


@dataclass(frozen=True)
class Backward:
    """One pass of a model, and the way back from a loss."""

    values: Values
    """As of :class:`Observed`."""
    gradients: Values
    """The gradient that arrives at a slot: at an output from all that uses it, at an input from this stage alone. Of a
    slot that is missing nothing is known."""
    parameters: Mapping[str, np.ndarray]
    """Parameter, or ``inputs[0]`` → its gradient."""
    silent: Collection[Key] = ()
    """Slots that nothing arrives at, and from which no other gradient can go on either."""


class Differentiable(Protocol):
    """A model with its inputs and a loss."""

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        """Parameter, or ``inputs[0]`` → its value."""
        ...

    @property
    def frozen(self) -> Sequence[str]:
        """Parameters that have no gradient because their owner wants none."""
        ...

    def run(
        self,
        *,
        wide: bool = False,
        shake: float = 0.0,
        forced: Mapping[Key, np.ndarray] | None = None,
        arriving: Mapping[Key, np.ndarray] | None = None,
    ) -> Backward:
        """Run forward and back once.

        Args:
            wide: as of :meth:`Model.run`.
            shake: the same.
            forced: the same.
            arriving: the gradients that go on from these slots, instead of those that arrive there.
        """
        ...


Loss = Callable[[Any], Any] | Mapping[str, np.ndarray]
"""From a model's output to a number, in its own framework; or weights of the output's elements, slot by slot."""


class Model(Protocol):
    """A model with its inputs, which can run again."""

    title: str
    facts: dict[str, str]

    def run(
        self, *, wide: bool = False, shake: float = 0.0, forced: Mapping[Key, np.ndarray] | None = None
    ) -> Observed:
        """Run the whole model once.

        Args:
            wide: in float64.
            shake: move parameters, inputs and intermediate results by a random share of at most this.
            forced: what a stage is given, or taken to return, instead of its own. What is observed in such a slot is
                what would have stood there.
        """
        ...

    def parts(self, stage: str) -> Parts:
        """The parameters and numbers of a stage's module."""
        ...


@dataclass(frozen=True)
class Parts:
    """What a module holds itself."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Attribute → parameter or buffer."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Attribute → number, string or tuple of numbers."""


def named_output(key: Key) -> str:
    """``name`` for a stage's first output, ``name:1`` for its second."""
    name, slot = key
    return name if slot == ">0" else f"{name}:{slot[1:]}"


def output_key(name: str) -> Key:
    """The inverse of :func:`named_output`."""
    stage, colon, at = name.rpartition(":")
    return (stage, f">{at}") if colon and at.isdigit() else (name, ">0")


def unique(name: str, slot: str, seen: dict[Key, int]) -> Key:
    """The key of a slot's next use: ``name#2`` where ``name`` was used before."""
    count = seen[name, slot] = seen.get((name, slot), 0) + 1
    return (name if count == 1 else f"{name}#{count}"), slot


def is_float(array: np.ndarray) -> bool:
    """Whether an array holds floating-point numbers, ml_dtypes' among them."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"
