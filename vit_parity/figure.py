"""Static charts for papers, drawn by matplotlib: PNG or SVG, as the file's name says."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.destination import write_file
from vit_parity.comparison import Comparison
from vit_parity.points import is_tokens
from vit_parity.report import Extras, growth_lines
from vit_spec import VitportError

if TYPE_CHECKING:
    from vit_parity.training import Step

ENDINGS = (".png", ".svg")
_INCHES, _DOTS_PER_INCH = (6.3, 3.8), 200
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
"""Okabe & Ito 2008: distinguishable with colour vision deficiency; each line has its own marker too."""
_MARKS = "osD^v"


def check_figure(path: Path) -> None:
    """Refuse a figure that cannot be drawn, before anything runs.

    Raises:
        VitportError: for another ending, or where matplotlib is missing.
    """
    if path.suffix.lower() not in ENDINGS:
        raise VitportError(f"{path} is not a figure file: its name must end in .png or .svg.")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise VitportError(f"Drawing {path} needs matplotlib: pip install 'vitport[figure]'.") from error


def write_growth(comparison: Comparison, path: Path, extras: Extras | None = None) -> None:
    """Error by depth of each run and dtype, on a log axis, with the rounding bounds dashed.

    Raises:
        VitportError: for another ending, without matplotlib, or where the file cannot be written.
    """
    check_figure(path)
    growth = growth_lines(comparison, extras or Extras())
    stages = [name.rpartition(".")[2] if is_tokens(name) else name for name in growth["stages"]]
    figure, axes = _axes("after embedding, block, norm, answer", _measure(comparison))
    for line in growth["lines"]:
        colour = _COLOURS[line["colour"] % len(_COLOURS)]
        dashed = {"linestyle": "--", "linewidth": 1} if line["bound"] else {"marker": _MARKS[line["colour"] % 5]}
        axes.plot(stages, _positive(line["values"]), color=colour, label=line["name"], markersize=4, **dashed)
    step = max(1, -(-len(stages) // 14))
    axes.set_xticks(range(0, len(stages), step), stages[::step])
    _save(figure, axes, path)


def write_drift(runs: Mapping[str, Sequence[Step]], path: Path) -> None:
    """Distance of JAX's parameters from PyTorch's after each step of training, one line a run.

    Raises:
        VitportError: for another ending, without matplotlib, or where the file cannot be written.
    """
    check_figure(path)
    figure, axes = _axes("steps", "relative L2 distance of the parameters")
    axes.xaxis.get_major_locator().set_params(integer=True)
    for at, (name, steps) in enumerate(runs.items()):
        values = _positive([step.distance for step in steps])
        axes.plot(
            range(1, len(steps) + 1), values, color=_COLOURS[at % 5], marker=_MARKS[at % 5], label=name, markersize=4
        )
    _save(figure, axes, path)


def _measure(comparison: Comparison) -> str:
    return "relative L2 distance " + ("of B from A" if comparison.truth is None else "from float64")


def _positive(values: Sequence[float]) -> np.ndarray:
    """Values for a log axis; zero and NaN leave a gap."""
    array = np.array(values, np.float64)
    return np.where(array > 0, array, np.nan)


def _axes(across: str, up: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.set(yscale="log", xlabel=across, ylabel=up)
    axes.grid(axis="y", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, axes: Any, path: Path) -> None:
    """Write the file: the same bytes for the same numbers, text in SVG as text."""
    import matplotlib

    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    told = {"Date": None} if path.suffix.lower() == ".svg" else {}
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vitport"}):
        figure.savefig(drawn, format=path.suffix[1:].lower(), metadata=told)
    write_file(path, drawn.getvalue())
