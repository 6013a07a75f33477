"""The charts at the end of a run. Oracle: the boxes that matplotlib itself gives to what it has drawn."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from vit_jax.training.evaluation.charts import draw
from vit_jax.training.evaluation.scores import Scores
from vit_jax.training.run.log import LINES

pytestmark = pytest.mark.jax_alone


@pytest.fixture
def figures(monkeypatch) -> dict[str, Any]:
    """File name → figure, of all that are written."""
    found = {}
    write = FigureCanvasAgg.print_png

    def keep(canvas: Any, path: Any, **options: Any) -> None:
        found[path.name] = canvas.figure
        write(canvas, path, **options)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", keep)
    return found


def _draw(folder, classes: list[str], lines: list[dict[str, Any]]) -> None:
    scores = Scores(len(classes))
    scores.confusion[:] = np.eye(len(classes), dtype=int)
    (folder / LINES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw(folder, scores, classes)


@pytest.mark.parametrize("name", ["{}", "a name of more letters than a chart has room for {}", "price $x^{} $"])
@pytest.mark.parametrize("count", [2, 30])
def test_the_names_of_classes_are_whole_and_beside_each_other(name, count, figures, tmp_path) -> None:
    _draw(tmp_path, [name.format(number) for number in range(count)], [])
    figure = figures["confusion.png"]
    axes = figure.axes[0]
    assert axes.get_window_extent().width >= 300  # the matrix itself
    for labels, side in ((axes.get_xticklabels(), 0), (axes.get_yticklabels(), 1)):
        boxes = [label.get_window_extent() for label in labels]
        assert all(box.min.min() >= 0 and (box.max <= figure.bbox.max).all() for box in boxes)
        places = sorted((box.min[side], box.max[side]) for box in boxes)
        assert all(first[1] <= second[0] for first, second in pairwise(places))


@pytest.mark.filterwarnings("error")
def test_names_that_no_font_can_draw_warn_of_nothing(figures, tmp_path) -> None:
    _draw(tmp_path, ["\x1b[31m\x07", "a\nb", "猫", "$x^{"], [{"step": 1, "of": "train", "loss": 1.0}])
    (axes, _) = figures["confusion.png"].axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [r"\x1b[31m\x07", r"a\nb", "猫", "$x^{"]


def test_of_a_thousand_classes_each_has_a_pixel(figures, tmp_path) -> None:
    _draw(tmp_path, [str(number) for number in range(1000)], [])
    assert figures["confusion.png"].axes[0].get_window_extent().width >= 1000


def test_a_run_of_one_step_is_a_point_at_a_whole_step(figures, tmp_path) -> None:
    _draw(tmp_path, ["ant", "bee"], [{"step": 1, "of": "train", "loss": 2.0, "accuracy": 0.5}])
    for axes in figures["curves.png"].axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())
    with Image.open(tmp_path / "curves.png") as chart:
        assert chart.width == 900
