"""Workers and turns, with sides that compute next to nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.alternate import Bench, Build, Pace, Turn, alternate, in_groups, twin_of
from benchmarks.process import Fresh, Sample, Worker
from benchmarks.side import UnavailableError

TRIVIAL = "tests.benchmarks.trivial"


@pytest.fixture(scope="module")
def worker():
    found = Worker(f"{TRIVIAL}:counting", {"start": 3}, {"ADDED": "7"})
    yield found
    found.close()


def test_a_worker_builds_once_and_keeps_its_state(worker) -> None:
    before = worker.answers()["total"][0]
    worker.measure("add", 4)
    worker.measure("add", 1)
    assert worker.answers()["total"][0] == before + 5


def test_a_worker_has_variables_of_its_own(worker) -> None:
    assert worker.answers()["variable"][0] == 7


def test_seconds_are_those_of_one_run(worker) -> None:
    """The shortest of some measurements, because others may compute at the same time: five runs would take 50 ms."""
    assert 0.01 <= min(worker.measure("slow", 5).seconds for _ in range(5)) < 0.05
    assert worker.measure("told", 3).seconds == 0.5


def test_a_worker_that_breaks_says_why() -> None:
    broken = Worker(f"{TRIVIAL}:counting", {"start": 0, "breaks": True})
    with pytest.raises(RuntimeError, match="broken on purpose"):
        broken.measure("add", 1)


def test_peaks_are_those_of_the_measurement() -> None:
    """300 MB that are held for a moment are seen while they are, and not after. Measured: 300 MB and 0."""
    hungry = Worker(f"{TRIVIAL}:hungry", {"megabytes": 300})
    try:
        peaks = [hungry.measure(part, 1).peak for part in ("rest", "fill", "rest")]
    finally:
        hungry.close()
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system cannot reset its count of peaks")
    assert 290e6 < peaks[1] - peaks[0] < 310e6
    assert abs(peaks[2] - peaks[0]) < 10e6


def test_a_side_that_is_not_there_is_left_out() -> None:
    with pytest.raises(UnavailableError, match="no such library"):
        Worker(f"{TRIVIAL}:missing", {})
    said: list[str] = []
    with Bench(said.append) as bench:
        assert not bench.start("absent", f"{TRIVIAL}:missing", {})
        assert bench.left_out == {"absent": "there is no such library"}
    assert said == ["  absent is left out: there is no such library"]


def test_fresh_processes_are_new_every_time() -> None:
    answers: dict[str, np.ndarray] = {}
    fresh = Fresh(lambda: Worker(f"{TRIVIAL}:counting", {"start": 1}), answers)
    for _ in range(2):
        assert math.isnan(fresh.measure("add", 1).begun)
        assert answers["total"][0] == 2
    assert dataclasses.replace(fresh, begun="told").measure("add", 1).begun == 0.5


class Scripted:
    """Answers without a process."""

    def __init__(self, name: str, seconds: float, log: list[tuple[str, int]]) -> None:
        self.name, self.seconds, self.log = name, seconds, log

    def measure(self, part: str, count: int) -> Sample:
        self.log.append((self.name + part, count))
        return Sample(self.seconds)


def test_sides_take_turns_after_two_runs_each() -> None:
    """One that takes 0.1 s runs 5 times to fill half a second; one of 2 s once; a fixed one is not warmed up."""
    log: list[tuple[str, int]] = []
    turns = [
        Turn("a", Scripted("a", 0.1, log), "1"), Turn("b", Scripted("b", 2.0, log), "2"),
        Turn("c", Scripted("c", 9.0, log), "3", fixed=True),
    ]  # fmt: skip
    found = alternate(turns, Pace(rounds=2, seconds=0.5))
    assert log[:4] == [("a1", 1), ("a1", 1), ("b2", 1), ("b2", 1)]
    assert log[4:] == [("a1", 5), ("b2", 1), ("c3", 1)] * 2
    assert {name: len(samples) for name, samples in found.items()} == {"a": 2, "b": 2, "c": 2}


def test_few_sides_are_alive_at_a_time() -> None:
    """Groups of two with ours and its twin, in the order of the sides; a group of which nothing is there is not run."""
    turns, pids = [], []
    counting = Build(f"{TRIVIAL}:counting", {}, {"ADDED": "7"})
    missing = Build(f"{TRIVIAL}:missing")
    sides = {
        "ours": counting.told({"start": 1}), "a": counting.told({"start": 1}), "b": missing, "c": missing,
        "d": missing, "e": counting.told({"start": 1}),
    }  # fmt: skip
    with Bench(lambda text: None) as bench:
        for found in in_groups(bench, "ours", sides, "told", 1e-9, Pace(rounds=2, seconds=0.0)):
            turns.append(list(found))
            pids.append({bench.facts[name]["pid"] for name in bench.workers})
            assert all(len(samples) == 2 for samples in found.values())
        assert not bench.workers
        assert list(bench.left_out) == ["b", "c", "d"]
        assert bench.distances == {"a": 0.0, "e": 0.0}
    assert turns == [["ours", "a", twin_of("ours")], ["ours", "e", twin_of("ours")]]
    assert len(pids[0]) == len(pids[1]) == 3
    assert not pids[0] & pids[1]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids[0] | pids[1])


def test_sides_of_a_group_are_held_to_ours() -> None:
    sides = {name: Build(f"{TRIVIAL}:counting", {"start": start}, {"ADDED": "7"}) for name, start in
             (("ours", 1), ("a", 2))}  # fmt: skip
    with Bench(lambda text: None) as bench, pytest.raises(RuntimeError, match="away from ours"):
        next(in_groups(bench, "ours", sides, "told", 1e-9, Pace(rounds=1)))


@pytest.mark.parametrize(("seconds", "rounds"), [(0.1, 7), (10.0, 6), (30.0, 5)])
def test_long_rounds_are_fewer(seconds, rounds) -> None:
    """60 s are spent: 600, 6 and 2 rounds, between 5 and 7."""
    assert Pace(rounds=7, least=5, budget=60.0).rounds_of(seconds) == rounds


@pytest.mark.parametrize("wrong", [1.001, math.nan])
def test_sides_that_compute_something_else_are_not_timed(wrong) -> None:
    bench = Bench(lambda text: None)
    ours = {"logits": np.array([3.0, 4.0])}
    bench.held("good", ours, {"logits": np.array([3.0, 4.0 + 5e-6])}, tolerance=2e-6)
    assert bench.distances["good"] == pytest.approx(1e-6)  # 5e-6 over the norm, 5
    with pytest.raises(RuntimeError, match="away from ours"):
        bench.held("bad", ours, {"logits": np.array([3.0, 4.0 * wrong])}, tolerance=2e-6)
    with pytest.raises(RuntimeError, match="answers"):
        bench.held("other", ours, {"losses": np.array([3.0])}, tolerance=2e-6)
