"""A server for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stores import Store, amazon, google


@pytest.fixture(scope="module", params=["gs", "s3"])
def served(request) -> Iterator[Store]:
    with (google if request.param == "gs" else amazon)() as store:
        yield store


@pytest.fixture
def store(served, monkeypatch, tmp_path) -> Store:
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    served.faults, served.delay, served.refused = 0.0, 0.0, None
    return served
