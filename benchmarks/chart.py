"""The chart of docs/reports/performance.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.measure import Comparison
from benchmarks.results import Result
from benchmarks.targets import target_of

MET, MISSED, STATED = ("#1a7f37", "o"), ("#c0392b", "X"), ("#6b7280", "D")
"""Colour, and a shape with the same meaning."""
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
LABEL = "ratio, median and quartiles of the rounds;  |  target,  ●  met,  ✖  not met,  ◆  none"


def draw(results: Mapping[str, Result], path: Path) -> None:
    """A line for each ratio: median, quartiles, and its target as a tick."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = {case: result.outcome.comparisons for case, result in results.items() if result.outcome.comparisons}
    lines = sum(len(comparisons) + 2 for comparisons in groups.values())
    figure = Figure(figsize=(9, 0.8 + 0.19 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    labels: dict[float, str] = {}
    at = 0.0
    for case, comparisons in groups.items():
        axes.text(
            0.0,
            at,
            CASES[case].title,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            weight="bold",
            size=8,
        )
        for comparison in comparisons:
            at += 1
            labels[at] = comparison.name + ("" if comparison.higher_is_better else " (lower is better)")
            _line(axes, at, case, comparison)
        at += 2
    axes.axvline(1.0, color="black", linewidth=0.6)
    axes.set(xscale="log", ylim=(at, -1), yticks=list(labels), xlabel=LABEL)
    axes.set_yticklabels(list(labels.values()), size=7)
    left, right = axes.get_xlim()
    axes.set_xticks([tick for tick in TICKS if left <= tick <= right], minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)


def _line(axes: object, at: float, case: str, comparison: Comparison) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    target, ratio = target_of(case, comparison.name), comparison.ratio
    colour, form = STATED if target is None else MET if target.met(comparison) else MISSED
    axes.plot([ratio.low, ratio.high], [at, at], color=colour, linewidth=3, solid_capstyle="butt", alpha=0.4)
    axes.plot([ratio.median], [at], marker=form, color=colour, markersize=4)
    bound = None if target is None or target.seconds else target.at_least if target.at_most is None else target.at_most
    if bound is not None:
        axes.plot([bound], [at], marker="|", color="black", markersize=7)
