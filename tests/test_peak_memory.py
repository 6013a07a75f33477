"""The measure of memory sees what is taken and given back, whatever was taken before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SEEN = """
import numpy as np
from tests.peak_memory import start, taken
np.ones(300 << 17).sum()
before = start()
np.ones(60 << 17).sum()  # 60 MiB, freed at once
print(taken(before) >> 20)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel's peak cannot be reset")
def test_a_peak_below_an_earlier_one_is_seen() -> None:
    """In a process of its own: after other tests the array may lie in memory that is resident already."""
    done = subprocess.run(
        [sys.executable, "-c", SEEN], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert 55 < int(done.stdout) < 90
