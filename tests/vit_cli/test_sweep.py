"""``vitport sweep`` runs every way that it names, and tells what ``vit_parity.sweep`` measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

import conversion
import vit_parity.sweep
from vit_cli.sweep import HEADERS, cells
from vit_parity.sweep import Case, Result
from vit_parity.sweep import sweep as measure

FEW = [Case("torch"), Case("torch", attention="fused"), Case("jax")]


@pytest.fixture
def few(monkeypatch) -> list[object]:
    """Three ways in place of them all, which tests/vit_parity/test_sweep.py tries; what was asked for."""
    asked: list[object] = []
    for name in ("one_at_a_time", "all_cases"):
        monkeypatch.setattr(vit_parity.sweep, name, lambda dtypes, name=name: asked.append((name, dtypes)) or FEW)
    return asked


def test_each_way_is_measured_and_told_as_json(weights, vitport, few, monkeypatch):
    """What the function that measures was given and what it returned, to the last digit."""
    measured: list[tuple[np.ndarray, list[Result]]] = []

    def watched(checkpoint, images, cases):
        measured.append((images, measure(checkpoint, images, cases)))
        return measured[-1][1]

    monkeypatch.setattr(vit_parity.sweep, "sweep", watched)
    result = vitport("sweep", weights, "--dtypes", "float32", "--batch", "2", "--seed", "3", "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert (told["schema"], told["batch"], told["seed"]) == (1, 2, 3)
    assert few == [("one_at_a_time", ("float32",))]
    assert len(told["cases"]) == 3
    ((images, results),) = measured
    size = conversion.load(weights).config.image_size
    np.testing.assert_array_equal(images, np.random.default_rng(3).standard_normal((2, *size, 3), np.float32))
    assert [result.case for result in results] == FEW
    assert told["cases"] == [result.to_dict() for result in results]
    for found in told["cases"]:
        assert 0 < found["error"] < 2e-6  # 16 unit roundoffs of float32, as in tests/vit_parity/test_sweep.py
        assert found["repeats"]


def test_a_row_shows_what_was_set_and_what_came_of_it():
    """A setting that a framework does not have is empty; what it refuses has no numbers."""
    result = Result(Case("torch", threads=1), 1.5e-7, True, 0.0, 2e-8)
    assert cells(result) == ["torch", "float32", "highest", "explicit", "", "1", "1.5e-7", "0", "2.0e-8", "yes"]
    nan = float("nan")
    refused = Result(Case("jax", "float16", attention="fused", jit=False), nan, False, nan, nan, "no kernel")
    assert cells(refused) == ["jax", "float16", "highest", "fused", "no", "", "refused", "", "", ""]
    assert len(cells(result)) == len(HEADERS)


def test_all_combinations_are_a_table_of_their_own(weights, vitport, few, monkeypatch):
    """Nothing is run: what is printed is a row a case."""
    results = [Result(case, 1e-7, True, 0.0, 0.0) for case in FEW]
    monkeypatch.setattr(vit_parity.sweep, "sweep", lambda *_: results)
    lines = vitport("sweep", weights, "--all", "--dtypes", "float32", "bfloat16").out.splitlines()
    assert few == [("all_cases", ("float32", "bfloat16"))]
    assert [line.split()[:4] for line in lines[-3:]] == [cells(result)[:4] for result in results]


@pytest.mark.parametrize(
    ("args", "sentence"), [(("--batch", "1"), "--batch must be at least 2"), (("--dtypes",), "must name at least one")]
)
def test_mistakes_are_told_in_one_sentence(weights, vitport, args, sentence):
    result = vitport("sweep", weights, *args)
    assert result.code == 2
    assert sentence in result.err
    assert result.err.count("\n") == 1
