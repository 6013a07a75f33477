"""A work directory before a run begins: a path, or an address in a bucket."""

from __future__ import annotations

from pathlib import Path

from vit_jax.training.recipe.config import CONFIG
from vit_spec.address import in_store


def config_of(workdir: str) -> Path | None:
    """The configuration of the run in a work directory, if there is one."""
    if not in_store(workdir):
        path = Path(workdir) / CONFIG
        return path if path.is_file() else None
    from conversion.store import Objects, fetched

    return None if Objects(workdir).versions([CONFIG]) == [None] else fetched(f"{workdir.rstrip('/')}/{CONFIG}")


def refuse_held(workdir: str) -> None:
    """
    Raises:
        VitportError: where a process that can be seen holds it; or if a store cannot be read.
    """
    from vit_jax.training.run import lease, lock

    if in_store(workdir):
        from conversion.store import Objects

        lease.refuse_held(Objects(workdir))
    else:
        lock.refuse_held(Path(workdir))
