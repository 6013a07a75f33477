"""Two hundred mutants of every kind of file; two thousand in the slow suite, in processes with little memory.

Oracle: the good file, and the contract: refused in one printable line, or read and the same, or read and told; within
ten seconds and 1 GiB; what stood at the destination stays when reading fails.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conversion.mutants import SUBJECTS, attack


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_mutant_is_refused_or_the_same_or_told(name, tmp_path) -> None:
    found = attack(name, tmp_path, seed=0, count=200)
    assert found["refused"] >= 20
    assert found.total() == 200


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_two_thousand_mutants_stay_within_a_gigabyte(name) -> None:
    command = [sys.executable, "-m", "tests.conversion.mutants", name, "1", "2000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum(json.loads(done.stdout.splitlines()[-1]).values()) == 2000
