"""What a comparison of the gradients of two models found, in words and as rows of a report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vit_parity.porting.findings import PortedRow
from vit_parity.porting.pairs import both_names

GradientOf = Literal["output", "parameter", "input"]
"""What arrives at a stage's output, the gradient of a parameter, or what a stage passes on to its input."""
GradientShown = Literal["alone", "first", "precision"]
"""B was given A's own gradients; it is only the first one apart; or in float64 nothing is wrong."""


@dataclass(frozen=True)
class GradientRow(PortedRow):
    """One gradient, in the order of the way back: from the output to the inputs."""

    of: GradientOf = "parameter"

    @property
    def title(self) -> str:
        """Its name in a table."""
        return titled(self.name, self.of)


@dataclass(frozen=True)
class GradientFault:
    """A place where B differentiates otherwise."""

    stage: str
    """A's name of the stage, or of the parameter."""
    counterpart: str
    """B's."""
    of: GradientOf
    error: float
    """Relative L2 distance, if all that it computes from is A's."""
    limit: float
    """The largest that rounding explains."""
    shown: GradientShown
    also: tuple[str, ...] = ()
    """What else of the same stage is wrong."""

    @property
    def sentence(self) -> str:
        """In words."""
        name = both_names(self.stage, self.counterpart)
        far = f"{self.error:.1e}, where rounding explains {self.limit:.1e}"
        of = {"output": "that reaches", "parameter": "of", "input": "that is passed on by"}[self.of]
        if self.shown == "first":
            return f"The gradient {of} {name} is the first one apart on the way back ({far})"
        if self.shown == "precision":
            return f"The gradient {of} {name} agrees in float64, but is further off than its dtype explains ({far})"
        told = {
            "output": f"The gradient that reaches {name} is wrong, though all behind it is right ({far})",
            "parameter": f"The gradient of {name} is wrong, though all that it is made of is right ({far})",
            "input": f"The gradient that {name} passes on is wrong, though what reaches it is right ({far})",
        }[self.of]
        return told + (f"; so is that of {', '.join(self.also)}" if self.also else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self) | {"also": list(self.also), "sentence": self.sentence}


@dataclass(frozen=True)
class Gradients:
    """The gradients of two models compared."""

    loss: str
    """Of what they are, in words."""
    rows: tuple[GradientRow, ...]
    """From the output to the inputs."""
    faults: tuple[GradientFault, ...]
    only_a: tuple[str, ...]
    """Parameters that nothing of B was compared with."""
    only_b: tuple[str, ...]
    frozen: tuple[str, ...]
    """Parameters that one side does not train."""
    unseen: tuple[str, ...]
    """Titles of models whose gradients by stage could not be seen without changing what they compute."""
    arrays: tuple[tuple[np.ndarray, np.ndarray], ...]
    """A's and B's gradient of each row, in A's axes."""

    @property
    def equal(self) -> bool:
        """Whether rounding explains every difference."""
        return not self.faults and all(row.judged == "rounding" for row in self.rows)

    @property
    def conclusion(self) -> str:
        """The result, a line for each fault, and what was not compared."""
        if self.faults:
            lines = [f"Fault of the gradients: {fault.sentence}." for fault in self.faults]
        elif self.equal:
            count = sum(row.of == "parameter" for row in self.rows)
            lines = [f"Rounding explains every difference of the gradients of {count} parameters and inputs."]
        else:
            lines = ["Gradients are apart where the forward pass is, and at no other stage by themselves."]
        for letter, names in (("A", self.only_a), ("B", self.only_b)):
            if names:
                lines.append(f"Parameters only in {letter}, not compared: {_some(names)}.")
        if self.frozen:
            lines.append(f"Parameters that are not trained (requires_grad=False), not compared: {_some(self.frozen)}.")
        lines += [f"{title} relies on a change in place: only the gradients of its parameters were compared."
                  for title in self.unseen]  # fmt: skip
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "loss": self.loss,
            "equal": self.equal,
            "rows": [row.to_dict() for row in self.rows],
            "faults": [fault.to_dict() for fault in self.faults],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "frozen": list(self.frozen),
            "unseen": list(self.unseen),
        }


def titled(name: str, of: GradientOf) -> str:
    """A gradient's name in a table: of a parameter, or at a stage's output or input."""
    return name if of == "parameter" else f"{name} ({of})"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f", and {len(names) - 4} more" if len(names) > 4 else "")
