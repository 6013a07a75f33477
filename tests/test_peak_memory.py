"""The measure of memory sees what is taken and given back, whatever was taken before."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.peak_memory import start, taken


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel's peak cannot be reset")
def test_a_peak_below_an_earlier_one_is_seen() -> None:
    np.ones(300 << 17).sum()
    before = start()
    np.ones(60 << 17).sum()  # 60 MiB, freed at once
    assert 55 << 20 < taken(before) < 90 << 20
