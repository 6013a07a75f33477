"""docs/reports/performance.md, from the results."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.cases import CASES, Case
from benchmarks.measure import Comparison, Measured, summary
from benchmarks.results import Result
from benchmarks.targets import target_of

CHART = "performance.png"
HEAD = """# Speed and memory

Written by `python -m benchmarks`; `python -m benchmarks NAME...` measures single cases again, and `--check` compares
new ratios with these ([testing](../testing.md)). The sides of a comparison are processes that take turns (A B A B …).
Each round gives one ratio; the tables show the median over the rounds and, in brackets, the quartiles. Times are
medians of the same rounds. Where `a` is another side's time and `b` ours, `a / b` says how many times as fast ours is.

{met} of {count} targets are met{missed}. Everything here ran on a CPU; [On a GPU](gpu.md) is for the rest.

![The ratios and their targets](performance.png)
"""

_PLACES = ("JAX_PLATFORMS", "TENSORSTORE_GCS_HTTP_URL", "GOOGLE_AUTH_TOKEN_FOR_TESTING", "XDG_CACHE_HOME")
"""Variables that say where a side runs, and not how."""


def page(results: Mapping[str, Result]) -> str:
    """The whole page.

    Args:
        results: by the names of their cases.
    """
    judged = [
        (f"{case}/{comparison.name}", target.met(comparison))
        for case, result in results.items()
        for comparison in result.outcome.comparisons
        if (target := target_of(case, comparison.name)) is not None
    ]
    missed = [f"`{name}`" for name, met in judged if not met]
    told = f"; missed: {', '.join(missed)}" if missed else ""
    head = HEAD.format(met=len(judged) - len(missed), count=len(judged), missed=told)
    parts = [section(CASES[case], result) for case, result in results.items()]
    absent = [f"`{case}`" for case in CASES if case not in results]
    if absent:
        parts.append(f"## Not measured\n\n{', '.join(absent)}.\n")
    return "\n".join([head, *parts, machines(results)])


def section(case: Case, result: Result) -> str:
    """One case: what was measured, the table, and notes."""
    o = result.outcome
    rows = [row(case.name, comparison) for comparison in o.comparisons]
    lines = [f"## {case.title}", "", case.words, ""]
    lines += ["| | a | b | a / b | target | met |", "|---|---|---|---|---|---|", *rows, ""]
    notes = []
    if o.distances:
        far = max(o.distances.values())
        notes.append(f"All sides compute the same: their outputs are within {far:.1e} of ours (relative L2).")
    if o.twins:
        notes.append(f"Two processes with the same code of ours differ by {result.noise:.1%} (root mean square).")
    notes += [f"Left out: {name} ({why})." for name, why in o.left_out.items()]
    settings: dict[str, list[str]] = {}
    for side, facts in o.facts.items():
        shown = {name: value for name, value in facts.get("environment", {}).items() if name not in _PLACES}
        if shown:
            settings.setdefault(" ".join(f"{name}={value}" for name, value in shown.items()), []).append(side)
    notes += [f"With `{words}`: {'; '.join(sides)}." for words, sides in settings.items()]
    rounds = {len(comparison.ratios) for comparison in o.comparisons} or {0}
    counted = " to ".join(str(number) for number in sorted({min(rounds), max(rounds)}))
    how = f"{counted} rounds in {result.seconds:.0f} s; load {result.load[0]:.1f} before"
    notes.append(f"`{result.command}` on {result.date}: {how}.")
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def row(case: str, comparison: Comparison) -> str:
    """A line of the table."""
    target, ratio = target_of(case, comparison.name), comparison.ratio
    spread = f"**{number(ratio.median)}** ({number(ratio.low)} to {number(ratio.high)})"
    cells = [comparison.name, amount(comparison.over), amount(comparison.under), spread]
    cells += ["", ""] if target is None else [target.words, "yes" if target.met(comparison) else "no"]
    return f"| {' | '.join(cells)} |"


def amount(measured: Measured) -> str:
    """A side's name and median, in a unit that leaves few digits."""
    median = summary(measured.values).median
    if measured.unit == "s":
        shown = f"{number(median)} s" if median >= 1 else f"{number(median * 1e3)} ms"
    elif measured.unit == "B":
        shown = f"{median / 1e6:.0f} MB"
    else:
        shown = f"{number(median)} {measured.unit}"
    return f"{measured.name}: {shown}"


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def machines(results: Mapping[str, Result]) -> str:
    """The machines that the cases were measured on."""
    groups: dict[str, list[str]] = {}
    for case, result in results.items():
        words = ", ".join(f"{name} {value}" for name, value in result.machine.items())
        groups.setdefault(words, []).append(f"`{case}`")
    lines = ["## Machine and versions", ""]
    for words, cases in groups.items():
        lines.append(f"{words}." if len(groups) == 1 else f"- {', '.join(cases)}: {words}.")
    return "\n".join([*lines, ""])
