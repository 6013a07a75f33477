"""Accelerators that are not here, described by the library that holds their compiler."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vit_jax.training.ahead.gpus import CARDS, OPTIONS
from vit_jax.training.devices.chips import V4, V5E, V5P, V6E, Chip
from vit_spec import VitportError

TPUS = {"v4": V4, "v5e": V5E, "v5p": V5P, "v6e": V6E}
_SLICES = {2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"), 3: ("2x2x1", "2x2x2", "2x2x4", "4x4x4")}
"""Usual ones, by axes: https://cloud.google.com/tpu/docs/v5e and /v5p."""
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",  # asks no server for the TPU of this machine
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes at once: none of them opens a TPU
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA calls a compilation of more than two minutes an error, and goes on
}
_SIZES = re.compile(r"[1-9]\d{0,3}(x[1-9]\d{0,3})*")


@dataclass(frozen=True)
class Topology:
    """Chips and the links between them; made by :func:`describe`."""

    name: str
    chip: Chip
    sizes: tuple[int, ...]
    """Of TPUs, chips along each axis of the links; of GPUs, hosts and GPUs of each."""
    devices: tuple[Any, ...]
    """As JAX describes them: programs are compiled for them, and none can run."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the compiler."""

    @property
    def hosts(self) -> int:
        return len({device.process_index for device in self.devices})

    @property
    def words(self) -> str:
        """How many of which."""
        return f"{len(self.devices)} x {self.chip.name}"

    def gather_seconds(self, devices: Sequence[Any]) -> float:
        """Seconds of an all-gather among some devices, for each byte of its result, at the links' full bandwidth.

        On a torus the axes along which they lie carry it together; an axis that is not closed to a ring carries half.
        GPUs gather within their hosts, then between hosts.
        """
        members = len(devices)
        if self.chip.closes:
            return (members - 1) / members / self._torus(devices)
        hosts = Counter(device.process_index for device in devices)
        inside, outside = max(hosts.values()), len(hosts)
        within = (inside - 1) / inside / self.chip.ring_bandwidth
        return within + (outside - 1) / outside / inside / self.chip.network_bandwidth

    def _torus(self, devices: Sequence[Any]) -> float:
        """Bytes per second that each device sends while it receives as much."""
        total = 0.0
        for axis, size in enumerate(self.sizes):
            along = {device.coords[axis] for device in devices}
            if len(along) > 1:
                ring = len(along) == size and size % self.chip.closes == 0
                total += self.chip.ring_bandwidth * (1.0 if ring else 0.5)
        return total


def prepare_environment() -> None:
    """Keeps JAX on this machine's CPU while it compiles for other chips. Call it before JAX looks at any device."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import jax

    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")


def describe(name: str) -> Topology:
    """The chips of a TPU slice, by their kind and their number along each axis of links, or GPUs by hosts and devices.

    Args:
        name: such as ``v5e:4x4``, ``v5p:2x2x1`` or ``h100:2x8``.

    Raises:
        VitportError: for another name, chips that do not exist so, or without their compiler.
    """
    kind, _, arrangement = name.partition(":")
    if kind not in TPUS.keys() | CARDS.keys():
        raise VitportError(
            f"--on {name} names no known chips: give one of {', '.join(TPUS)} and the chips along each axis of its "
            f"links, such as v5e:4x4 or v5p:2x2x1, or one of {', '.join(CARDS)} with hosts and GPUs, such as h100:2x8."
        )
    is_gpu = kind in CARDS
    chip = CARDS[kind].chip if is_gpu else TPUS[kind]
    axes = 3 if chip.rings == 3 else 2
    if not _SIZES.fullmatch(arrangement) or arrangement.count("x") != axes - 1:
        what = "hosts and GPUs of each" if is_gpu else f"chips along each of the {axes} axes of their links"
        example = "2x8" if is_gpu else "x".join(["2"] * axes)
        raise VitportError(f"--on {name} is no arrangement of {chip.name}: give {what}, such as {kind}:{example}.")
    sizes = tuple(int(size) for size in arrangement.split("x"))
    if not is_gpu and importlib.util.find_spec("libtpu") is None:
        raise VitportError(
            f"--on {name} needs XLA's compiler for TPUs, which is not installed: `pip install 'vitport[aot-tpu]'` "
            "(Linux on x86-64, 700 MB; no TPU is needed)."
        )
    if is_gpu and importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise VitportError(
            f"--on {name} needs NVIDIA's compilers, which are not installed: `pip install 'vitport[aot-cuda]'` "
            "(Linux on x86-64, 5 GB; no GPU is needed)."
        )
    if is_gpu and sizes[1] > chip.domain:
        raise VitportError(f"--on {name} has hosts of {sizes[1]} GPUs, and known are hosts of up to {chip.domain}: "
                           f"give more hosts, as in {kind}:2x8.")  # fmt: skip
    try:
        devices = _gpus(CARDS[kind].target, sizes) if is_gpu else _tpus(name, chip, sizes)
    except Exception as error:  # the plug-in raises what it likes
        reason = " ".join(str(error).split())[:300]
        slices = "" if is_gpu else f", such as {', '.join(_SLICES[axes])}"
        raise VitportError(
            f"--on {name} is not an arrangement that the compiler knows: give another{slices} ({reason})."
        ) from error
    return Topology(name, chip, sizes, devices, OPTIONS if is_gpu else {})


def _tpus(name: str, chip: Chip, sizes: tuple[int, ...]) -> tuple[Any, ...]:
    from jax.experimental import topologies

    options: dict[str, Any] = {"chip_config_name": "megacore"} if chip is V4 else {}  # one device a chip, as JAX has it
    if sizes == (1, 1):
        options["chips_per_host_bounds"] = (1, 1, 1)  # otherwise hosts have four chips
    with _silenced():
        return tuple(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)


def _gpus(target: str, sizes: tuple[int, ...]) -> tuple[Any, ...]:
    from jax.experimental import topologies

    shape = "x".join(map(str, (1, *sizes)))
    found = topologies.get_topology_desc("any", platform="cuda", target_config=target, topology=shape).devices
    assert len(found) == math.prod(sizes)
    return tuple(found)


@contextmanager
def _silenced() -> Iterator[None]:
    """Without what libtpu writes to standard error when it is loaded on a machine without a TPU."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
