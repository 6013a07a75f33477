"""Which of the steps that a trace is asked for a start takes. Oracle: the sets of steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from vit_jax.training.run.trace import Trace

pytestmark = pytest.mark.jax_alone


@pytest.mark.parametrize("requested", [None, (0, 1), (0, 8), (1, 99), (3, 2), (5, 3), (7, 1), (7, 2)])
@pytest.mark.parametrize("taken", [0, 3, 5, 8])
def test_what_a_start_cannot_trace_is_told(requested: tuple[int, int] | None, taken: int) -> None:
    told = Trace(Path("profile"), requested, 8).shortfall(taken)
    asked = set() if requested is None else {requested[0] + at for at in range(requested[1])}
    left = sorted(asked & set(range(taken, 8)))
    if left == sorted(asked):
        assert told is None
    else:
        assert told is not None
        traced = f"it traces steps {left[0] + 1} to {left[-1] + 1}." if left else "it traces nothing."
        assert told.endswith(f"asks for steps that this start does not take: {traced}")
