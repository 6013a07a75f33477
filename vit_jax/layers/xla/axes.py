"""The axes of the mesh that layers know of, and those along which the images that they see lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
"""Axes of the mesh in context (``jax.set_mesh``, ``jax.sharding.use_abstract_mesh``): the first two shard images, the
second parameters too, the third heads and hidden units."""
_IMAGES: ContextVar[tuple[str, ...]] = ContextVar("axes", default=(DATA, FSDP))


def image_axes() -> tuple[str, ...]:
    """The axes of the mesh along which the images that traced code sees lie."""
    return _IMAGES.get()


@contextmanager
def images_along(*axes: str) -> Iterator[None]:
    """While traced code sees images that lie along these axes alone, as under ``jax.vmap`` with ``spmd_axis_name`` for
    the others."""
    token = _IMAGES.set(axes)
    try:
        yield
    finally:
        _IMAGES.reset(token)
