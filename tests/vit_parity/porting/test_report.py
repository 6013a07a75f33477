"""The report of models of any names, and of very many stages."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from tests.vit_parity.porting.ports import tokens
from tests.vit_parity.test_report import CHROMIUM, Page, probed
from vit_parity import Capture
from vit_parity.porting import compare

STAGES = 2000
SECONDS = 20.0
"""Of CPU time for comparing and writing; 2 were measured."""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """2,000 stages under names that a page must not take for tags, the last ten of them apart."""
    rng = np.random.default_rng(0)
    names = [f"tower/{at // 50}.<b>.layer[{at % 50}]" for at in range(STAGES)]
    first = {name: rng.standard_normal((2, 6, 8)).astype(np.float32) for name in names}
    second = {name: array * (1 + 1e-2 * (at >= STAGES - 10)) for at, (name, array) in enumerate(first.items())}
    a, b = (Capture(title, kept, tokens(2, 6, 8), {"dtype": "float32"})
            for title, kept in (("A", first), ("B", second)))  # fmt: skip
    before = time.process_time()
    found = compare(a, b, pairs=[f"{name} = {name}" for name in names])
    path = tmp_path_factory.mktemp("report") / "out.html"
    found.write_report(path)
    return found, path, time.process_time() - before


def test_two_thousand_stages_are_written_at_once(report) -> None:
    found, path, seconds = report
    data = json.loads(Page(path.read_text(encoding="utf-8")).data)
    assert [row["name"] for row in data["rows"]] == [row.name for row in found.rows]
    assert [row["verdict"] for row in data["rows"]].count("rounding") == STAGES - 10
    assert data["first_divergence"] == found.faults[0].stage == f"tower/{(STAGES - 10) // 50}.<b>.layer[40]"
    assert seconds < SECONDS
    assert path.stat().st_size < 4e6


@pytest.mark.skipif(CHROMIUM is None, reason="needs a headless Chromium, such as Debian's package")
def test_two_thousand_stages_work_in_a_browser(report, tmp_path) -> None:
    found, path, _ = report
    before = time.monotonic()
    seen = probed(path, tmp_path)
    assert time.monotonic() - before < 60
    assert seen["rows"] == [STAGES]
    worst = max(found.rows, key=lambda row: row.difference.relative)
    assert found.rows[-10].difference.relative <= worst.difference.relative
    assert seen["descending"][1] == "relative"
    assert seen["down"] == [True, True]
    assert seen["side"][1] == 0, "a name is text, never a tag"
