"""Compiled programs, kept for the next start in a folder or a bucket."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vit_cli.terminal import say
from vit_spec import VitportError
from vit_spec.address import in_store

_PROGRAMS = "*-cache"
"""Files that JAX writes, named by what they were compiled from."""
_LOOK = 10.0
"""Seconds between two looks for new programs."""
_QUIET = 3.0
"""Seconds since the last change of a file that is whole: JAX writes it in one go, but not in one moment."""

_LAST = 60.0
"""Seconds that the end of a run waits for the last programs."""


@contextmanager
def keeping_programs(given: str | None) -> Iterator[None]:
    """JAX keeps programs there from now on, those that took half a second or more.

    In a bucket they are whole objects: JAX works in a folder of this process, which begins with those that are there,
    and new ones are written while the run goes on. That they cannot be is told, and costs the run nothing.

    Raises:
        VitportError: if the folder cannot be made, or the bucket cannot be read.
    """
    with ExitStack() as stack:
        if given is not None:
            import jax

            folder = stack.enter_context(_followed(given)) if in_store(given) else _made(given)
            if in_store(given):  # else programs are found only in a folder of the same name
                jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        yield


@contextmanager
def _followed(address: str) -> Iterator[Path]:
    from conversion.store import Objects, StoreError
    from conversion.store.fetch import copy

    objects = Objects(address)
    with tempfile.TemporaryDirectory(prefix="vitport-programs-", ignore_cleanup_errors=True) as name:
        folder, ended = Path(name), threading.Event()
        known = {name for name in objects.names() if "/" not in name and name.endswith(_PROGRAMS[1:])}
        copy(objects, sorted(known), folder)

        def put_new() -> None:
            files = {file.name: file for file in folder.glob(_PROGRAMS) if file.name not in known}
            whole = [file for file in files.values() if time.time() - file.stat().st_mtime > _QUIET or ended.is_set()]
            objects.write_all((file.name, file.read_bytes) for file in whole)
            known.update(file.name for file in whole)

        def follow() -> None:
            try:
                while not ended.wait(_LOOK):
                    put_new()
                put_new()
            except (StoreError, OSError) as error:
                say(f"note: compiled programs are not kept for the next start: {error}")

        following = threading.Thread(target=follow, name="compiled programs", daemon=True)
        following.start()
        try:
            yield folder
        finally:
            ended.set()
            following.join(_LAST)


def _made(path: str) -> Path:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VitportError(
            f"--compilation-cache {path} cannot be made a folder ({error.strerror}): choose another."
        ) from error
    return Path(path)
