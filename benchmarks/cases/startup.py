"""Start-up times, before anything is computed."""

from __future__ import annotations

import dataclasses
import sys

from benchmarks.alternate import Say, Turn, alternate, seconds
from benchmarks.cases.case import Case, Outcome, Scale
from benchmarks.measure import Comparison
from benchmarks.process import Command

ROUNDS = 15
"""A process starts in a fraction of a second."""
WORDS = """Whole processes, from start to end: `vitport --help` beside an interpreter that does nothing; `import
vit_jax` beside `import flax`, neither of which imports its neural network modules; and both with those modules."""
PAIRS = {
    "vitport --help": (["-m", "vit_cli.main", "--help"], "python -c pass", ["-c", "pass"]),
    "import vit_jax": (["-c", "import vit_jax"], "import flax", ["-c", "import flax"]),
    "import create_model": (["-c", "from vit_jax import create_model"], "import flax.nnx", ["-c", "import flax.nnx"]),
}


def case() -> Case:
    """The start-up case."""
    return Case("startup", "Start-up", WORDS, run)


def run(scale: Scale, say: Say) -> Outcome:
    """Each pair in alternation."""
    del say
    pace = dataclasses.replace(scale.pace, rounds=min(ROUNDS, scale.pace.rounds * 2), seconds=0.0)
    comparisons = []
    for name, (ours, beside, other) in PAIRS.items():
        turns = [Turn(name, Command([sys.executable, *ours])), Turn(beside, Command([sys.executable, *other]))]
        found = alternate(turns, pace)
        comparisons.append(Comparison(name, seconds(name, found[name]), seconds(beside, found[beside]), False))
    return Outcome(comparisons)
