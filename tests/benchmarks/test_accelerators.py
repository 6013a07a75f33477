"""The table of compiled programs and its page; the programs themselves are compiled by `.ci/accelerators`."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.accelerator_programs import programs
from benchmarks.accelerators import KEPT, difference, page
from benchmarks.fleets import config_of


def test_the_committed_page_is_that_of_the_committed_programs() -> None:
    kept = json.loads(KEPT.read_text())
    assert page(kept) == Path("docs/reports/accelerators.md").read_text()
    names = [program.name for program in programs()]
    assert len(set(names)) == len(names)
    assert set(kept) <= set(names)
    for program in programs():
        devices = program.mesh.data * program.mesh.fsdp * program.mesh.tensor
        config_of(program.model)
        assert kept.get(program.name, {}).get("chips", devices) == devices


def test_a_program_that_takes_more_or_fits_no_longer_is_told() -> None:
    fits = {"memory": {"limit": 16e9, "left": 6e9}}
    assert difference(fits, fits) is None
    assert difference(fits | {"parallel": "jit"}, fits) is None  # a version that says more
    assert difference({"memory": {"limit": 16e9, "left": 5.7e9}}, fits) == "takes 10.30 GB, and it took 10.00 GB"
    assert difference({"needs": 20e9, "limit": 16e9}, fits) == "does not fit, and it was: compiles"
    assert difference(fits, None) is not None
