"""Settings of the whole test run; imports neither framework."""

from __future__ import annotations

import os
import signal
import tempfile

from hypothesis import settings

# The tolerances of the parity tests are for CPUs: accelerators round float32 products to fewer bits by default.
# Tests marked `device` are run with JAX_PLATFORMS set.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

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
