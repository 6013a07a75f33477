"""Settings of the whole test run; imports neither framework."""

from __future__ import annotations

import gc
import os
import signal
import tempfile

import pytest
from hypothesis import settings

# The tolerances of the parity tests are for CPUs: accelerators round float32 products to fewer bits by default.
# Tests marked `device` are run with JAX_PLATFORMS set.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# One device in every process of tests, whichever ran before it: `evaluate` and `compile_inference` offer every core as
# one, and a run that trains later in the same process would share its batches among them.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=1")

# A shell that runs the tests in the background has them ignore Ctrl-C, and so every process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A landing must not fail on a case that its change has nothing to do with: CI tries the same examples every time.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Tests build the same small models again and again, some in processes of their own: what is compiled once serves all.
_COMPILED = tempfile.TemporaryDirectory()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _COMPILED.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def pytest_configure(config: pytest.Config) -> None:
    """With pytest-xdist, one process of tests for each core: threads of torch and numpy would only wait for each other,
    which takes more than twice the time. Files begin in their order, heavy folders first; xdist would take those with
    many tests first, and end with one long test of some file."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the processes start
        config.option.loadscopereorder = False


def pytest_collection_finish() -> None:
    """The half million objects of what the tests import stay: the garbage collector need not look at them again and
    again, which takes a tenth of the time that models are traced in."""
    gc.freeze()
