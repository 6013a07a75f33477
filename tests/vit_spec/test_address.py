"""Addresses in the place of paths."""

from __future__ import annotations

import pytest

from vit_spec import VitportError
from vit_spec.address import check_all_local, check_local


@pytest.mark.parametrize(
    "path", ["gs://bucket/x", "s3://b", "https://host/x.npz", "gs:/bucket/x", "az://c/f", "GS://b/x"]
)
def test_an_address_is_one_sentence(path) -> None:
    with pytest.raises(VitportError, match="is not on this machine, and vitport reads and writes paths"):
        check_local(path)
    with pytest.raises(VitportError, match="is not on this machine"):
        check_all_local({"a": {"b": [1, None, path]}})


@pytest.mark.parametrize(
    "path",
    [
        "hf://owner/name",
        "jax:/folder/x",
        "transformers:/x",
        "a/b",
        "C:/Users",
        "C://x",
        "shards/{0..3}.tar",
        "a:b",
        "",
        "x://",
    ],
)  # fmt: skip
def test_a_path_is_none(path) -> None:
    check_local(path)
