"""The report of models of any names, and of very many stages."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from tests.vit_parity.porting.ports import tokens
from tests.vit_parity.test_report import CHROMIUM, Page, probed
from vit_parity import Capture
from vit_parity.porting import compare

STAGES, FEW = 2000, 100
CALLS = 1.1
"""Of Python functions for each stage, twice as many over as many; work that grows with the square makes it 2."""


def captures(count: int) -> tuple[Capture, Capture]:
    """Stages under names that a page must not take for tags, the last ten of them apart."""
    rng = np.random.default_rng(0)
    names = [f"tower/{at // 50}.<b>.layer[{at % 50}]" for at in range(count)]
    first = {name: rng.standard_normal((2, 6, 8)).astype(np.float32) for name in names}
    second = {name: array * (1 + 1e-2 * (at >= count - 10)) for at, (name, array) in enumerate(first.items())}
    a, b = (Capture(title, kept, tokens(2, 6, 8), {"dtype": "float32"})
            for title, kept in (("A", first), ("B", second)))  # fmt: skip
    return a, b


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Pairs are drafted, compared and written."""
    found = compare(*captures(STAGES))
    path = tmp_path_factory.mktemp("report") / "out.html"
    found.write_report(path)
    return found, path


def test_two_thousand_stages_are_paired_compared_and_written(report) -> None:
    found, path = report
    data = json.loads(Page(path.read_text(encoding="utf-8")).data)
    assert [(row.name, row.counterpart) for row in found.rows] == [
        (name, name) for name in captures(STAGES)[0].activations
    ]
    assert [row["name"] for row in data["rows"]] == [row.name for row in found.rows]
    assert [row["verdict"] for row in data["rows"]].count("rounding") == STAGES - 10
    assert data["first_divergence"] == found.faults[0].stage == f"tower/{(STAGES - 10) // 50}.<b>.layer[40]"
    assert path.stat().st_size < 4e6


def test_the_work_grows_with_the_stages_and_not_with_their_square(tmp_path) -> None:
    """Calls of Python functions are counted, which no other process changes."""

    def calls(count: int) -> int:
        called = 0

        def counted(frame: Any, event: str, arg: Any) -> None:
            nonlocal called
            called += event == "call"

        given = captures(count)
        sys.setprofile(counted)
        try:
            compare(*given).write_report(tmp_path / f"{count}.html")
        finally:
            sys.setprofile(None)
        return called

    calls(FEW)  # imports
    assert calls(2 * FEW) / (2 * FEW) < CALLS * calls(FEW) / FEW


@pytest.mark.skipif(CHROMIUM is None, reason="needs a headless Chromium, such as Debian's package")
def test_two_thousand_stages_work_in_a_browser(report, tmp_path) -> None:
    found, path = report
    seen = probed(path, tmp_path)
    assert seen["rows"] == [STAGES]
    worst = max(found.rows, key=lambda row: row.difference.relative)
    assert found.rows[-10].difference.relative <= worst.difference.relative
    assert seen["descending"][1] == "relative"
    assert seen["down"] == [True, True]
    assert seen["side"][1] == 0, "a name is text, never a tag"
