"""Charts at the end of a run: curves of its log, and the confusion matrix of its last evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.training.evaluation.scores import AnyScores, Scores
from vit_jax.training.run.log import read_lines
from vit_jax.training.run.writing import writing
from vit_spec.printable import printable

CURVES, CONFUSION = "curves.png", "confusion.png"
_MOST_NAMES = 30
"""With more classes there is no room for their names."""
_LONGEST_NAME = 24
"""Letters of a class name that are shown."""
_LETTER, _NAMED, _UNNAMED, _LEAST, _MOST = 0.09, 0.17, 0.012, 4.2, 24.0
"""Inches: width of a letter; side of a class with a name, and without; smallest and largest side of a confusion
matrix. A figure has 100 pixels per inch, so up to 2,000 classes get a pixel each."""
_INSTEAD = {"accuracy": "mean_average_precision"}
"""What evaluations of several labels an image have."""
_FEW = 20
"""Curves of fewer points get markers."""


def draw(workdir: Path, scores: AnyScores | None, classes: Sequence[str]) -> list[Path]:
    """Draws the curves, and the confusion matrix if there was an evaluation of one label an image.

    Returns:
        The files written.

    Raises:
        VitportError: if a file cannot be written.
    """
    # Not pyplot, which would open a display and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figures: dict[str, Any] = {CURVES: _curves(Figure(figsize=(9, 3.6), layout="constrained"), read_lines(workdir))}
    if isinstance(scores, Scores):
        shown = [_short(name) for name in classes] if len(classes) <= _MOST_NAMES else []
        side = min(max((_NAMED if shown else _UNNAMED) * len(classes), _LEAST), _MOST)
        side += _LETTER * max(map(len, shown), default=4)
        figures[CONFUSION] = _confusion(Figure(figsize=(side + 1.6, side + 0.8), layout="constrained"), scores, shown)
    for name, figure in figures.items():
        with writing(workdir / name), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # boxes stand for letters that it lacks
            FigureCanvasAgg(figure).print_png(workdir / name)
    return [workdir / name for name in figures]


def _curves(figure: Any, lines: list[dict[str, Any]]) -> Any:
    left, right = figure.subplots(1, 2)
    for axes, name in ((left, "loss"), (right, "accuracy")):
        for of in ("train", "validation"):
            own = [line for line in lines if line["of"] == of]
            found = next((one for one in (name, _INSTEAD.get(name, name)) if any(one in line for line in own)), name)
            label = of if found == name else f"{of}, {found.replace('_', ' ')}"
            points = [(line["step"], line[found]) for line in own if line.get(found) is not None]
            if points:
                marker = "o" if of == "validation" or len(points) < _FEW else None  # a line of one point is invisible
                axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=3)
        axes.set(xlabel="step", ylabel=name)
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure


def _confusion(figure: Any, scores: Scores, names: Sequence[str]) -> Any:
    axes = figure.subplots()
    images = scores.confusion.sum(axis=1, keepdims=True)
    shares = scores.confusion / np.maximum(images, 1)
    drawn = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    figure.colorbar(drawn, label="share of the label's images")
    axes.set(xlabel="predicted", ylabel="label")
    if names:
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    return figure


def _short(name: str) -> str:
    """Long names lose their middle, since names often differ at their ends; what no font can draw is written out."""
    name = printable(name)
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"
