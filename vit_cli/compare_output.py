"""The output of ``vitport compare``: tables for people, JSON for machines; docs/comparing.md explains both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vit_cli.terminal import print_table, say, short_number

if TYPE_CHECKING:
    from vit_parity import Comparison, Row
    from vit_parity.capture import Capture
    from vit_parity.compare import Findings
    from vit_parity.gradients import GradientRow
    from vit_parity.porting import PortedRow, Porting

SCHEMA = 1
"""Version of the JSON; it changes when a field changes its meaning or is removed."""
_BAR = 12
_LOWEST, _HIGHEST = -9.0, 0.0
"""The decades of a bar; one character is three quarters of a decade."""


def to_json(found: Findings, *, image: str | None, seed: int | None) -> dict[str, Any]:
    """The whole comparison as JSON values."""
    comparison = found.comparison
    first = comparison.first_divergence
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "a": {"title": comparison.a.title, "facts": comparison.a.facts},
        "b": {"title": comparison.b.title, "facts": comparison.b.facts},
        "image": image,
        "seed": seed,
        "first_divergence": None if first is None else first.name,
        "activations": [row.to_dict() for row in comparison.rows],
        "only_a": list(comparison.only_a),
        "only_b": list(comparison.only_b),
    }
    if found.explanations is not None:
        told["explanations"] = [explanation.to_dict() for explanation in found.explanations]
    if found.local_errors is not None:
        told["local_errors"] = found.local_errors
    if found.gradients is not None:
        told["gradients"] = [row.to_dict() for row in found.gradients]
    return told


def print_findings(found: Findings, *, all_layers: bool, worst_first: bool) -> None:
    """A table of activations with bars, the first divergence, and the causes if they were asked for."""
    comparison = found.comparison
    _print_sides(comparison.a, comparison.b)
    say(f"on {found.runs.input_name}; differences of B from A in relative L2 norm, 99th percentile in ulps;")
    say("bars from 1e-9 to 1; | marks the largest difference that rounding explains")
    rows = [row for row in comparison.rows if all_layers or comparison.is_stage(row)]
    if worst_first:
        rows.sort(key=_excess, reverse=True)
    print_table(_headers(comparison, found), [_cells(row, found) for row in rows])
    first = comparison.first_divergence
    if first is None and found.explanations:
        say("No difference is beyond the bound on rounding, but a cause is named of what is smaller.")
    elif first is None:
        say("Rounding explains every difference.")
    else:
        far = f"{short_number(first.difference.relative)}, where rounding explains {short_number(first.tolerance)}"
        say(f"First divergence: {first.name} ({first.verdict_in_words}; {far}).")
    if found.explanations is not None:
        for explanation in found.explanations:
            say(f"Cause: {explanation.sentence}.")
        if not found.explanations:
            say("Every layer of both runs is correct on its own input: there is no cause to name.")
    if found.gradients is not None:
        _print_gradients(found.gradients, worst_first=worst_first)


def _print_sides(a: Capture, b: Capture) -> None:
    from vit_parity.capture import headings

    for line in headings(a, b):
        say(line)


def print_porting(found: Porting, *, all_layers: bool) -> None:
    """A table of the stages of two models of the user's own, and what is wrong."""
    _print_sides(found.a, found.b)
    say("relative L2 norms: B from A, what rounding explains, and each stage of B by itself, on the inputs of A")
    _print_stages("stage", found.rows, all_layers=all_layers)
    for letter, names in (("A", found.only_a), ("B", found.only_b)):
        if names:
            more = f", and {len(names) - 6} more" if len(names) > 6 else ""
            say(f"Only in {letter}: {', '.join(names[:6])}{more}.")
    if found.gradients is not None:
        say(f"Gradients of {found.gradients.loss}, from the output to the inputs:")
        _print_stages("gradient", found.gradients.rows, all_layers=all_layers)
    for line in found.conclusion.splitlines():
        say(line)


def _print_stages(what: str, all_rows: Sequence[PortedRow], *, all_layers: bool) -> None:
    from vit_parity.porting.findings import telling

    rows = all_rows if all_layers else telling(all_rows)
    cells = [
        (row.title, row.counterpart, short_number(row.difference.relative), short_number(row.tolerance),
         "" if row.alone is None else short_number(row.alone), row.judged)
        for row in rows
    ]  # fmt: skip
    print_table([f"{what} of A", f"{what} of B", "B against A", "rounding", "by itself", "<"], cells)
    if len(rows) < len(all_rows):
        say(f"{len(rows)} of {len(all_rows)} {what}s; --all shows the others")


def _print_gradients(rows: Sequence[GradientRow], *, worst_first: bool) -> None:
    say("")
    say("Gradients of a random linear function of the output, in the order of the backward pass:")
    if worst_first:
        rows = sorted(rows, key=lambda row: -row.difference.relative)
    numbers = [(row.difference.relative, row.difference.max_abs, row.error_a, row.error_b) for row in rows]
    cells = [[row.name, *map(short_number, entry)] for row, entry in zip(rows, numbers, strict=True)]
    print_table(["with respect to", "relative", "max abs", "A error", "B error"], cells)


def bar(value: float, limit: float) -> str:
    """A bar of the value's decade, with the limit marked: ``████|██·····``."""
    filled, mark = (_place(number) for number in (value, limit))
    cells = ["█" if at < filled else "·" for at in range(_BAR)]
    cells[min(mark, _BAR - 1)] = "|"
    return "".join(cells)


def _place(value: float) -> int:
    if math.isnan(value):
        return _BAR
    if value <= 0:
        return 0
    share = (math.log10(value) - _LOWEST) / (_HIGHEST - _LOWEST) if math.isfinite(value) else 1.0
    return max(0, min(_BAR, round(share * _BAR)))


def _excess(row: Row) -> float:
    """How far beyond rounding; infinite for NaN."""
    worst = row.difference.relative / row.tolerance if row.tolerance else math.inf
    return math.inf if math.isnan(worst) else worst


def _headers(comparison: Comparison, found: Findings) -> list[str]:
    headers = ["after", "relative", "<", "max abs", "ulp"]
    if comparison.truth is not None:
        headers += ["A error", "B error"]
    headers += [f"{letter} alone" for letter in _alone(found)]
    return [*headers, "<"]


def _alone(found: Findings) -> dict[str, dict[str, float]]:
    """Letter → block → error on the exact input."""
    titles = {"A": found.comparison.a.title, "B": found.comparison.b.title}
    errors = found.local_errors or {}
    return {letter: errors[title] for letter, title in titles.items() if title in errors}


def _cells(row: Row, found: Findings) -> Sequence[str]:
    cells = [
        row.name,
        short_number(row.difference.relative),
        bar(row.difference.relative, row.tolerance),
        short_number(row.difference.max_abs),
        f"{row.ulps.p99:.0f}" if row.ulps.p99 < 1e6 else short_number(row.ulps.p99),
    ]
    if found.comparison.truth is not None:
        cells += ["" if error is None else short_number(error) for error in (row.error_a, row.error_b)]
    cells += [short_number(errors[row.name]) if row.name in errors else "" for errors in _alone(found).values()]
    return [*cells, row.verdict_in_words]
