"""Accelerators that are not here, described by the library that holds their compiler."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vit_jax.training.devices.chips import V4, V5E, V5P, V6E, Chip
from vit_spec import VitportError

TPUS = {"v4": V4, "v5e": V5E, "v5p": V5P, "v6e": V6E}
_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",  # asks no server for the TPU of this machine
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
_NAME = re.compile(r"(?P<chip>\w+):(?P<sizes>[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2})")


@dataclass(frozen=True)
class Topology:
    """Chips and the links between them; made by :func:`describe`."""

    name: str
    chip: Chip
    sizes: tuple[int, ...]
    """Chips along each axis of the links."""
    devices: tuple[Any, ...]
    """As JAX describes them: programs are compiled for them, and none can run."""

    @property
    def hosts(self) -> int:
        return len({device.process_index for device in self.devices})

    def bandwidth(self, devices: Sequence[Any]) -> float:
        """Bytes per second that each of some devices sends while it receives as much, all taking part in a collective.

        The axes along which they lie carry it together; an axis that is not closed to a ring carries half.
        """
        total = 0.0
        for axis, size in enumerate(self.sizes):
            along = {device.coords[axis] for device in devices}
            if len(along) > 1:
                ring = len(along) == size and size % self.chip.closes == 0
                total += self.chip.ring_bandwidth * (1.0 if ring else 0.5)
        return total


def prepare_environment() -> None:
    """Keeps JAX on this machine's CPU while it compiles for other chips. Call it before JAX is imported."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def describe(name: str) -> Topology:
    """The chips of a slice, by their kind and their number along each axis of links.

    Args:
        name: such as ``v5e:4x4`` or ``v5p:2x2x1``.

    Raises:
        VitportError: for another name, a slice that does not exist, or without the compiler.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["chip"] not in TPUS:
        raise VitportError(
            f"--on {name} names no known chips: give one of {', '.join(TPUS)} and the chips along each axis of its "
            "links, such as v5e:4x4, v6e:16x16 or v5p:2x2x1."
        )
    chip = TPUS[match["chip"]]
    sizes = tuple(int(size) for size in match["sizes"].split("x"))
    axes = 3 if chip.rings == 3 else 2
    if len(sizes) != axes:
        raise VitportError(f"--on {name} has {len(sizes)} axes, and slices of {chip.name} have {axes}: give as many.")
    if importlib.util.find_spec("libtpu") is None:
        raise VitportError(
            f"--on {name} needs XLA's compiler for TPUs, which is not installed: `pip install 'vitport[aot-tpu]'` "
            "(Linux on x86-64, 700 MB; no TPU is needed)."
        )
    from jax.experimental import topologies

    options = {"chip_config_name": "megachip"} if chip is V4 else {}  # one device a chip, as JAX starts it
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:  # the plug-in raises what it likes
        reason = " ".join(str(error).split())[:300]
        raise VitportError(f"--on {name} is no slice that the compiler knows ({reason}): give another.") from error
    return Topology(name, chip, sizes, tuple(found.devices))
