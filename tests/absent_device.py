"""A device that is not here, for what is chosen before anything is compiled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """What a mesh reads of JAX's devices."""

    platform: str
    device_kind: str = "some"
    id: int = 0
    process_index: int = 0
    coords: tuple[int, ...] = (0, 0, 0)
    core_on_chip: int = 0
