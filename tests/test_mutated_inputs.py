"""Mutants of rules, configurations, captures and images; two thousand of each in the slow suite.

Oracle: the good file; for preprocessor_config.json transformers' processor; and the contract: refused in one printable
line, or read and the same, or read as what the file says, within ten seconds and 1 GiB.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.mutated_inputs import SUBJECTS, attack


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_mutant_is_refused_or_the_same_or_read_as_what_it_says(name, tmp_path) -> None:
    found = attack(name, tmp_path, seed=0, count=40)
    assert found["refused"] >= 5
    assert found.total() == 40


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_two_thousand_mutants_stay_within_a_gigabyte(name) -> None:
    command = [sys.executable, "-m", "tests.mutated_inputs", name, "1", "2000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum(json.loads(done.stdout.splitlines()[-1]).values()) == 2000
