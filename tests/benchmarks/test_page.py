"""The page, the chart and the JSON file, from results that were not measured."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import pytest

from benchmarks import __main__ as command
from benchmarks import gpu
from benchmarks.cases import CASES, Outcome
from benchmarks.measure import Comparison, Measured, faster
from benchmarks.page import page, row
from benchmarks.results import Result, read_results, write_results
from benchmarks.targets import TARGETS, Target, target_of
from vit_spec import VitportError


def seconds(name: str, *values: float) -> Measured:
    return Measured(name, "s", values)


def result(*comparisons: Comparison, **rest: object) -> Result:
    outcome = Outcome(comparisons, **rest)  # type: ignore[arg-type]
    return Result(outcome, {"cores": "2", "jax": "0.10.2"}, "python -m benchmarks", "2026-01-01", 12.0)


TRAINING = result(
    faster("batch 8, timm", seconds("ours", 2.0, 2.0, 2.0), seconds("timm", 1.0, 1.2, 1.4)),
    faster("batch 8, timm, torch.compile", seconds("ours", 2.0, 2.0, 2.0), seconds("compiled", 1.0, 1.0, 1.0)),
    twins=[faster("batch 8", seconds("ours", 1.0), seconds("ours again", 1.03))],
    distances={"timm": 2.4e-6},
    left_out={"other": "there is none"},
    facts={"ours": {"environment": {"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}}},
)
MEMORY = result(Comparison("batch 8, timm", Measured("ours", "B", (9e8,)), Measured("timm", "B", (1e9,)), False))


def test_the_page_has_ratios_targets_and_what_was_left_out() -> None:
    text = page({"training-s": TRAINING, "memory": MEMORY})
    assert "1 of 2 targets are met; missed: `training-s/batch 8, timm`." in text
    assert "| batch 8, timm | timm: 1.2 s | ours: 2 s | **0.6** (0.55 to 0.65) | ≥ 0.8, aim 1 | no |" in text
    assert "| batch 8, timm, torch.compile | compiled: 1 s | ours: 2 s | **0.5** (0.5 to 0.5) |  |  |" in text
    assert "| batch 8, timm | ours: 900 MB | timm: 1000 MB | **0.9** (0.9 to 0.9) | ≤ 1 | yes |" in text
    assert "within 2.4e-06 of ours" in text
    assert "differ by 3.0%" in text
    assert "Left out: other (there is none)." in text
    assert "- With `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`: ours." in text
    assert "cores 2, jax 0.10.2." in text
    assert "`inference-ti`, `inference-s`" in text.partition("## Not measured")[2]


def test_a_target_in_seconds_is_on_our_own_median() -> None:
    comparison = Comparison(
        "vitport --help", seconds("vitport --help", 0.31, 0.32, 0.30), seconds("python", 0.1, 0.1, 0.1), False
    )
    assert row("startup", comparison).endswith("| **3.1** (3.05 to 3.15) | ≤ 0.3 s | no |")
    assert Target("*", at_most=0.32, seconds=True).met(comparison)


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("inference-b/batch 32, timm", 0.95),
        ("inference-b/batch 32, timm, torch.compile", None),
        ("inference-ti/batch 1, transformers", 0.95),
        ("inference-s/batch 8, of JAX's best product", 0.85),
        ("training-ti/batch 8, timm", 0.8),
        ("training-ti/batch 8, timm, torch.compile", None),
        ("compile/scan, unrolled", 0.5),
        ("compile/scan, torch.compile", 1.0),
        ("compile/unrolled, torch.compile", None),
        ("compile/scan second start", None),
        ("compile/scan second start, until the step runs", 3.0),
        ("remat/scan, temporaries", 0.5),
        ("remat/scan, time", 1.35),
        ("remat/scan, resident", None),
        ("conversion/timm to google", 2.0),
        ("gpu-b/training, ours, fused attention", 1.0),
        ("gpu-b/MFU, training, ours, fused attention", None),
        ("gpu-l/MFU, training, ours, fused attention", 0.5),
    ],
)
def test_targets_are_those_of_the_comparison(name, bound) -> None:
    case, _, comparison = name.partition("/")
    found = target_of(case, comparison)
    assert (found and (found.at_least or found.at_most)) == bound


def test_every_target_is_of_a_case_that_there_is() -> None:
    names = [*CASES, *(case.name for case in gpu.cases(gpu.Card()))]
    for target in TARGETS:
        assert any(fnmatchcase(case, target.pattern.partition("/")[0]) for case in names), target


def test_results_are_merged_case_by_case(tmp_path) -> None:
    path = tmp_path / "results.json"
    command.keep(path, tmp_path, MEMORY, "memory")
    command.keep(path, tmp_path, TRAINING, "training-s")
    assert list(read_results(path)) == ["training-s", "memory"]
    assert read_results(path)["training-s"].outcome.distances == TRAINING.outcome.distances
    assert page(read_results(path)) == (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert (tmp_path / "performance.png").read_bytes().startswith(b"\x89PNG")
    write_results(path, read_results(path))
    assert json.loads(path.read_text())["schema"] == 1


def test_a_file_of_something_else_is_refused(tmp_path) -> None:
    path = tmp_path / "results.json"
    path.write_text("[]")
    with pytest.raises(VitportError, match="holds no results"):
        read_results(path)


def test_cases_are_chosen_by_how_they_begin() -> None:
    assert [case.name for case in command.chosen(("inference", "startup"))] == [
        "inference-ti", "inference-s", "inference-b", "startup",
    ]  # fmt: skip
    assert [case.name for case in command.chosen(())] == list(CASES)
    with pytest.raises(VitportError, match="quick is not a case"):
        command.chosen(("quick",))


def test_the_guard_tells_worse_ratios(capsys) -> None:
    committed = {"training-s": result(faster("x", seconds("ours", 1, 1, 1), seconds("timm", 1, 1, 1)))}
    slower = {"training-s": result(faster("x", seconds("ours", 2, 2, 2), seconds("timm", 1, 1, 1)))}
    assert not command.report(committed, committed)
    assert command.report(committed, slower)
    assert "1 of 1 ratios are worse" in capsys.readouterr().out
    with pytest.raises(VitportError, match="None of the measured cases"):
        command.report({}, slower)
