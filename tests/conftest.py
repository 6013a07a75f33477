"""Settings of the whole test run; imports neither framework."""

from __future__ import annotations

import os

# The tolerances of the parity tests are for CPUs: accelerators round float32 products to fewer bits by default.
# Tests marked `device` are run with JAX_PLATFORMS set.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
