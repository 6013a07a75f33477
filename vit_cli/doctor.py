"""``vitport doctor``: what a bug report needs to say about a machine, or about the processes of a pod."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from vit_cli.reading import Json
from vit_cli.terminal import say, write_json
from vit_jax.training.recipe.config import Processes
from vit_spec import VitportError
from vit_spec.address import in_store

_PACKAGES = (
    "vitport", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "torch", "safetensors", "onnx",
    "onnxruntime", "pillow", "transformers",
)  # fmt: skip
_VARIABLES = ("XLA_FLAGS", "JAX_", "TPU_", "CUDA_VISIBLE_DEVICES", "SLURM_NTASKS", "LIBTPU_INIT_ARGS")
"""Beginnings of the names of environment variables that change how JAX runs."""
_BYTES = 1 << 24


def doctor(
    *,
    paths: Annotated[tuple[str, ...], tyro.conf.arg(name="path", metavar="PATH")] = (),
    processes: Processes = Processes(),  # noqa: B008
    as_json: Json = False,
) -> int:
    """Print versions, devices, storage and a first all-reduce.

    The status is 1 where something of it fails. On a pod, run it on every host as `vitport train` is run.

    Args:
        paths: Folders that a run would write to or read from, such as its work directory, here or in a bucket.
        as_json: Print JSON instead of lines.
    """
    found: dict[str, Any] = {"versions": _versions(), "machine": _machine()}
    parts: dict[str, Callable[[], Any]] = {"devices": lambda: _devices(processes), "all-reduce": _all_reduce}
    parts |= {f"storage {path}": lambda path=path: _storage(path) for path in (paths or (".",))}
    failed = False
    for name, look in parts.items():
        try:
            found[name] = look()
        except Exception as error:  # whatever is broken here is what is asked for
            failed = True
            found[name] = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if as_json:
        write_json(found)
    else:
        for name, value in found.items():
            _print(name, value)
    return int(failed)


def _print(name: str, value: Any) -> None:
    if isinstance(value, dict):
        say(f"{name}: " + ", ".join(f"{key} {one}" for key, one in value.items()))
    else:
        say(f"{name}: {value}")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _machine() -> dict[str, Any]:
    from vit_jax.cores import cores

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    return {
        "system": platform.platform(),
        "cores": cores(),
        "memory": f"{pages / 1e9:.1f} GB",
        **{name: repr(value) for name, value in variables.items()},
    }


def _devices(processes: Processes) -> dict[str, Any]:
    import jax

    from vit_jax.training.devices.processes import join

    join(processes)
    start = time.perf_counter()
    devices = jax.devices()
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    return {
        "backend": jax.default_backend(),
        "kinds": " and ".join(sorted({device.device_kind for device in devices})),
        "all": len(devices),
        "of this process": jax.local_device_count(),
        "process": f"{jax.process_index()} of {jax.process_count()}",
        "memory of one": "unknown" if limit is None else f"{limit / 1e9:.1f} GB",
        "found in": f"{time.perf_counter() - start:.1f} s",
    }


def _all_reduce() -> str:
    """Each device gives its number, and each must get the sum of all."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = jax.devices()
    mesh = Mesh(np.array(devices), ("all",))
    rows = NamedSharding(mesh, PartitionSpec("all"))
    numbers = jax.make_array_from_callback(
        (len(devices),), rows, lambda where: np.arange(len(devices), dtype=np.float32)[where]
    )
    start = time.perf_counter()
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))(numbers)
    sums = [float(np.asarray(shard.data)) for shard in total.addressable_shards]
    expected = len(devices) * (len(devices) - 1) / 2
    if any(value != expected for value in sums):
        raise VitportError(f"the sum over {len(devices)} devices should be {expected:g}, and is {sums}")
    return f"right on {len(devices)} devices, in {time.perf_counter() - start:.2f} s with compilation"


def _storage(given: str) -> str:
    """Writes, reads and renames a file of 16 MiB, as a checkpoint is written; it is removed again."""
    if in_store(given):
        return _store(given)
    path = Path(given)
    if path.exists() and not path.is_dir():
        raise VitportError(f"{path} is not a folder: give the folder that the run would use")
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    data = os.urandom(_BYTES)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=".vitport-doctor-", dir=nearest) as folder:
        first, second = Path(folder, "part"), Path(folder, "whole")
        with first.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        first.rename(second)
        written = time.perf_counter() - start
        if second.read_bytes() != data:
            raise VitportError(f"{nearest} gives back other bytes than were written")
    free = shutil.disk_usage(nearest).free
    where = "" if nearest == path else f" (nearest folder that is there: {nearest})"
    return f"16 MiB written and renamed in {written:.2f} s, {free / 1e9:.0f} GB free{where}"


def _store(address: str) -> str:
    """Writes an object of 16 MiB, reads it back, sees whether the store keeps conditions of writes, and deletes it."""
    from conversion.store import Objects

    objects, data = Objects(address), os.urandom(_BYTES)
    name = f".vitport-doctor-{os.urandom(8).hex()}"
    start = time.perf_counter()
    objects.write(name, data)
    written = time.perf_counter() - start
    try:
        start = time.perf_counter()
        found, version = objects.read_version(name)
        read = time.perf_counter() - start
        if found != data:
            raise VitportError(f"{address} gives back other bytes than were written")
        objects.write(name, b"other")
        if objects.write_if(name, b"third", version) is not None:
            raise VitportError(
                f"{address} writes over versions that it was told not to, so no run is safe from another"
            )
        start = time.perf_counter()
        objects.versions([name])
        asked = time.perf_counter() - start
    finally:
        objects.delete([name])
    return f"16 MiB written in {written:.2f} s and read in {read:.2f} s, an answer takes {asked * 1000:.0f} ms"
