"""Measures this project against its alternatives: ``python -m benchmarks [NAME...] [--check] [--quick]``."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks import check as guard
from benchmarks.alternate import Pace
from benchmarks.cases import CASES, Case, Scale
from benchmarks.chart import draw
from benchmarks.command import run
from benchmarks.machine import load, machine
from benchmarks.page import CHART, page, section
from benchmarks.results import COMMITTED, Result, read_results, write_results
from vit_spec import VitportError

DOCS = Path(__file__).parent.parent / "docs" / "reports"
QUICK = Scale(Pace(rounds=2, seconds=0.01, budget=1.0), small=True)


def benchmarks(
    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...")] = (),
    *,
    check: bool = False,
    quick: bool = False,
    rounds: int = 7,
    results: Path = COMMITTED,
    docs: Path = DOCS,
) -> int:
    """Measure some or all cases; after each, save its results and rewrite the page.

    Args:
        names: Cases, or prefixes of their names; all by default.
        check: Compare with the saved results instead of replacing them; status 1 if a ratio is worse than
            its noise explains.
        quick: Two blocks, tiny images, two rounds: to check that everything runs. Nothing is saved.
        rounds: At most so many; of long ones, four.
        results: JSON file of the results.
        docs: Folder for performance.md and its chart.

    Returns:
        0; 1 after a check that failed, or a case that did.
    """
    if rounds < 1 or (check and quick):
        raise VitportError("--rounds must be at least 1, and --check cannot go with --quick, which measures nothing.")
    scale = QUICK if quick else Scale(Pace(rounds=rounds))
    committed = read_results(results)
    measured: dict[str, Result] = {}
    failed = []
    for case in chosen(names):
        try:
            measured[case.name] = measure(case, scale)
        except RuntimeError as error:
            failed.append(case.name)
            say(f"{case.name} failed: {error}")
            continue
        say(section(case, measured[case.name]))
        if not check and not quick:
            keep(results, docs, measured[case.name], case.name)
    if failed:
        say(f"Failed: {', '.join(failed)}.")
    return int(report(committed, measured) or bool(failed)) if check else int(bool(failed))


def chosen(names: Sequence[str], cases: Mapping[str, Case] = CASES) -> list[Case]:
    """The cases whose names have one of the prefixes.

    Raises:
        VitportError: if a prefix matches no case.
    """
    for name in names:
        if not any(case.startswith(name) for case in cases):
            raise VitportError(f"{name} is not a case: choose among {', '.join(cases)}, or give a prefix.")
    return [case for name, case in cases.items() if not names or name.startswith(tuple(names))]


def measure(case: Case, scale: Scale) -> Result:
    """Run a case and print how long it took."""
    say(f"{case.name}: {case.title}")
    before, start = load(), time.perf_counter()
    outcome = case.run(scale, say)
    seconds = time.perf_counter() - start
    say(f"  took {seconds:.0f} s")
    command = " ".join(["python", *sys.orig_argv[1:]])
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Result(outcome, machine(), command, date, seconds, (before, load()))


def keep(path: Path, docs: Path, result: Result, name: str) -> None:
    """Add a case's result to the saved ones, and write the page."""
    found = read_results(path) | {name: result}
    results = {case: found[case] for case in CASES if case in found}
    write_results(path, results)
    draw(results, docs / CHART)
    (docs / "performance.md").write_text(page(results), encoding="utf-8")


def report(committed: dict[str, Result], measured: dict[str, Result]) -> bool:
    """Print how the ratios compare; returns whether any is worse.

    Raises:
        VitportError: if there is nothing to compare.
    """
    found = guard.check(committed, measured)
    if not found:
        raise VitportError("None of the measured cases has saved results: run them without --check first.")
    for case, result in measured.items():
        if case in committed and committed[case].machine != result.machine:
            say(f"{case}: the committed ratios come from another machine or other versions.")
    for checked in found:
        say(checked.words)
    for name in guard.not_checked(committed, measured):
        say(f"not compared: {name}, which only one of the two has")
    worse = [checked for checked in found if checked.verdict == "worse"]
    say(f"{len(worse)} of {len(found)} ratios are worse than noise explains.")
    return bool(worse)


def say(text: str) -> None:
    """On stdout, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(run(benchmarks, "benchmarks"))
