"""The real DINOv2 weights for tests, downloaded once through the demo's own function."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vit_cli.download import UnavailableError, fetch_dinov2_onnx


def real_dinov2_cache(config: pytest.Config) -> Path:
    """A cache that holds the ONNX file, kept between runs; skips where nothing can be downloaded.

    On a continuous-integration machine (``CI`` in the environment) a missing download is a failure.
    """
    cache = Path(config.cache.mkdir("dinov2"))
    try:
        fetch_dinov2_onnx(cache)
    except UnavailableError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    return cache
