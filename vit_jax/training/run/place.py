"""Where a run is kept: a folder that all its processes see, or a bucket and a folder on each host's own disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import jax

from conversion.store import Objects
from vit_jax.training.devices.processes import gather_messages, raise_on_all
from vit_jax.training.run.lease import Lease
from vit_jax.training.run.lock import Lock
from vit_jax.training.run.mirror import Mirror
from vit_spec.address import in_store


class Place:
    """A work directory, which is nobody's before :meth:`held`. A context manager, which ends what follows its folder.

    Args:
        workdir: a path, or the address of a folder in a bucket. All processes make a place for it.

    Attributes:
        name: the work directory as it was given.
        folder: where this process writes.
        mirror: ``None`` for a path.
    """

    def __init__(self, workdir: str | Path) -> None:
        self.name = str(workdir)
        self.mirror = (
            Mirror(Objects(self.name), jax.process_index(), jax.process_count()) if in_store(workdir) else None
        )
        self.folder = Path(workdir) if self.mirror is None else self.mirror.folder

    @contextmanager
    def held(self, on_message: Callable[[str], None]) -> Iterator[Lock | Lease | None]:
        """The lock, in the first process; to the other processes it is ``None``. A collective.

        Raises:
            VitportError: in all processes, if another run holds the work directory, or it cannot be written.
        """
        locks: list[Lock | Lease] = []
        mirror = self.mirror

        def take() -> None:
            if jax.process_index() == 0:
                locks.append(Lock(self.folder, on_message) if mirror is None else Lease(mirror.objects, on_message))

        try:
            raise_on_all(take)
            if mirror is not None:
                token = gather_messages(next((it.token for it in locks if isinstance(it, Lease)), ""))[0]
                for lock in locks:
                    mirror.check = lock.check
                raise_on_all(lambda: mirror.begin(token))
            yield next(iter(locks), None)
        finally:
            for lock in locks:
                lock.release()

    def push(self) -> None:
        """Writes what changed in the folder, beside checkpoints, to where the run is kept."""
        if self.mirror is not None:
            self.mirror.push()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.mirror is not None:
            self.mirror.close()
