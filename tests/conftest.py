"""Settings of the whole test run; imports neither framework."""

from __future__ import annotations

import os

from hypothesis import settings

# The tolerances of the parity tests are for CPUs: accelerators round float32 products to fewer bits by default.
# Tests marked `device` are run with JAX_PLATFORMS set.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A landing must not fail on a case that its change has nothing to do with: CI tries the same examples every time.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
