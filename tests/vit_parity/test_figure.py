"""Static charts hold the numbers that they are drawn from. Oracles: the runs, Pillow, an XML parser."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.small_configs import COMBINATIONS
from tests.vit_parity.runs import checkpoint, random_batch, replayed_model, run_jax, run_torch
from vit_parity import Capture, compare_captures
from vit_parity.bound import bounds
from vit_parity.comparison import depth_of
from vit_parity.figure import write_drift, write_growth
from vit_parity.measure import relative
from vit_parity.report import Extras
from vit_parity.training import Step
from vit_spec import VitportError

CONFIG = COMBINATIONS["plain"]
WEIGHTS, IMAGES = checkpoint(CONFIG), random_batch(CONFIG)
STEPS = {"adamw, float32": [Step(1.0, 1.0, 1e-7), Step(0.9, 0.9, 3e-6)], "sgd, float64": [Step(1.0, 1.0, 0.0)] * 2}
SVG = "{http://www.w3.org/2000/svg}"


def drawn(write, path) -> Figure:
    """The figure as it is when it is saved."""
    seen: list[Figure] = []
    save = Figure.savefig

    def keep(figure, *args, **options):
        seen.append(figure)
        return save(figure, *args, **options)

    with mock.patch.object(Figure, "savefig", keep):
        write(path)
    (figure,) = seen
    return figure


def test_errors_by_depth_are_those_of_the_runs_with_the_derived_bound_of_each_dtype(tmp_path):
    """Oracle: ``relative`` and ``bounds`` on the activations themselves."""
    truth = Capture("truth", run_torch(WEIGHTS, IMAGES, "float64").activations, IMAGES)
    model = replayed_model(WEIGHTS, IMAGES)
    a, b = run_torch(WEIGHTS, IMAGES), run_jax(WEIGHTS, IMAGES)
    coarse = run_torch(WEIGHTS, IMAGES, "bfloat16")
    found = compare_captures(a, b, truth=truth, model=model)
    figure = drawn(
        lambda path: write_growth(found, path, Extras(model=model, others=[depth_of(coarse, truth, model)])),
        tmp_path / "a.svg",
    )
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    lines = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in axes.lines}
    stages = ["embed", "blocks.0", "blocks.1", "norm", "logits"]
    runs = {"A, float32": a, "B, float32": b, "bfloat16": coarse}
    for name, run in runs.items():
        expected = [relative(run.activations[at], truth.activations[at]) for at in stages]
        np.testing.assert_array_equal(lines[name], expected)
        limit = bounds(model, run.dtype, exact=truth.activations)
        np.testing.assert_array_equal(lines[f"bound, {run.dtype.name}"], [limit[at] for at in stages])
        assert (lines[name] < lines[f"bound, {run.dtype.name}"]).all()
    assert len(lines) == 5


def test_two_captures_are_drawn_against_each_other(tmp_path):
    """Without weights there is no float64: the difference of B from A and its estimated bound."""
    a = run_torch(WEIGHTS, IMAGES)
    found = compare_captures(a, replace(run_jax(WEIGHTS, IMAGES), title="B"))
    figure = drawn(lambda path: write_growth(found, path), tmp_path / "a.png")
    assert [line.get_label() for line in figure.axes[0].lines] == ["B against A", "bound"]
    assert figure.axes[0].get_ylabel() == "relative L2 distance of B from A"


def test_training_is_drawn_step_by_step_and_zero_leaves_a_gap(tmp_path):
    figure = drawn(lambda path: write_drift(STEPS, path), tmp_path / "a.png")
    first, second = figure.axes[0].lines
    np.testing.assert_array_equal(first.get_ydata(), [1e-7, 3e-6])
    np.testing.assert_array_equal(first.get_xdata(), [1, 2])
    assert np.isnan(np.asarray(second.get_ydata(), float)).all()


def test_png_and_svg_are_what_their_names_say_and_the_same_bytes_again(tmp_path):
    """Oracles: Pillow and an XML parser. A figure for a page is wide enough at 200 dots an inch; text stays text."""
    for name in ("a.png", "a.svg"):
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_drift(STEPS, tmp_path / folder / name)
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    image = Image.open(tmp_path / "one" / "a.png")
    assert (image.format, image.width) == ("PNG", 1260)
    root = ElementTree.parse(tmp_path / "one" / "a.svg").getroot()
    assert root.tag == f"{SVG}svg"
    assert {"adamw, float32", "sgd, float64", "steps"} <= {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}


def test_mistakes_are_told(tmp_path, monkeypatch):
    with pytest.raises(VitportError, match=r"end in .png or .svg"):
        write_drift(STEPS, tmp_path / "a.gif")
    with pytest.raises(VitportError, match="cannot be written"):
        write_drift(STEPS, tmp_path / "nowhere" / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(VitportError, match=r"pip install 'vitport\[figure\]'"):
        write_drift(STEPS, tmp_path / "a.png")
