"""Results as JSON: one entry for each case, so that an interrupted run can continue with the missing ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Outcome
from benchmarks.measure import Comparison, twin_noise
from vit_spec import VitportError

COMMITTED = Path(__file__).parent / "committed.json"
"""The source of docs/reports/performance.md and the reference of ``--check``."""


@dataclass(frozen=True)
class Result:
    """A case's outcome, and how it was measured."""

    outcome: Outcome
    machine: Mapping[str, str]
    command: str
    date: str
    seconds: float
    """Duration of the case, building and compiling included."""
    load: tuple[float, float] = field(default=(0.0, 0.0))
    """Load of the machine before and after; the latter includes the case itself."""

    @property
    def noise(self) -> float:
        """Between two processes that run the same code, as a share."""
        return twin_noise(self.outcome.twins)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        o = self.outcome
        return {
            "date": self.date, "command": self.command, "seconds": round(self.seconds, 1), "load": list(self.load),
            "machine": dict(self.machine),
            "comparisons": [comparison.to_dict() for comparison in o.comparisons],
            "twins": [twin.to_dict() for twin in o.twins],
            "distances": dict(o.distances), "left_out": dict(o.left_out), "facts": dict(o.facts),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Result:
        """The inverse of :meth:`to_dict`."""
        outcome = Outcome(
            [Comparison.from_dict(entry) for entry in values["comparisons"]],
            [Comparison.from_dict(entry) for entry in values["twins"]],
            values["distances"], values["left_out"], values["facts"],
        )  # fmt: skip
        before, after = values["load"]
        return cls(
            outcome, values["machine"], values["command"], values["date"], values["seconds"], (before, after)
        )  # fmt: skip


def read_results(path: Path) -> dict[str, Result]:
    """Case → result, in the order of the cases; empty if there is no file.

    Raises:
        VitportError: if the file holds something else.
    """
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text())
        found = {name: Result.from_dict(entry) for name, entry in values["cases"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise VitportError(f"{path} holds no results ({error!r}): remove it, and measure again.") from error
    return {name: found[name] for name in CASES if name in found}


def write_results(path: Path, results: Mapping[str, Result]) -> None:
    """All of them, numbers rounded to six digits."""
    values = {"schema": 1, "cases": {name: _rounded(result.to_dict()) for name, result in results.items()}}
    path.write_text(json.dumps(values, indent=1) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value
