"""Where devices lie on the mesh. Oracle: the places of chips on a torus, and the numbers of their slices."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from vit_jax.training import MeshShape, make_mesh

pytestmark = pytest.mark.jax_alone


@dataclass(frozen=True)
class Chip:
    """As much of a device of a TPU v4 as lays it out: a torus of 4 x 4 x 4 a slice, hosts of 2 x 2 chips."""

    id: int
    process_index: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU v4"
    core_on_chip: int = 0


def chips(slices: int) -> list[Chip]:
    """In JAX's order: by processes."""
    places = list(itertools.product(range(4), range(4), range(4)))
    places.sort(key=lambda place: (place[2], place[1] // 2, place[0] // 2, place[1], place[0]))
    every = [(part, place) for part in range(slices) for place in places]
    return [Chip(at, at // 4, part, place) for at, (part, place) in enumerate(every)]


def steps(devices: np.ndarray, axis: int) -> np.ndarray:
    """Links between neighbours along an axis of the mesh, round its ring."""
    places = np.array([chip.coords for chip in devices.flat]).reshape(*devices.shape, 3)
    apart = np.abs(places - np.roll(places, 1, axis))
    return np.minimum(apart, 4 - apart).sum(-1)


def test_neighbours_on_the_mesh_are_neighbours_on_the_torus(monkeypatch) -> None:
    monkeypatch.setattr(jax, "devices", lambda: chips(1))
    mesh = make_mesh(MeshShape(4, 4, 4))
    for axis in range(3):
        assert steps(mesh.devices, axis).max() == 1
    given = make_mesh(MeshShape(4, 4, 4), chips(1))
    assert steps(given.devices, 2).max() > 1  # in the order in which they are given


def test_slices_lie_along_the_outermost_axis(monkeypatch) -> None:
    monkeypatch.setattr(jax, "devices", lambda: chips(2))
    mesh = make_mesh(MeshShape(2, 16, 4))
    assert [{chip.slice_index for chip in row.flat} for row in mesh.devices] == [{0}, {1}]
    assert steps(mesh.devices, 2).max() == 1
    whole = make_mesh(MeshShape(1, 32, 4))
    assert [{chip.slice_index for chip in whole.devices[0, half].flat} for half in (slice(16), slice(16, 32))] == [
        {0},
        {1},
    ]


def test_an_axis_may_take_part_of_the_torus(monkeypatch) -> None:
    monkeypatch.setattr(jax, "devices", lambda: chips(1))
    assert sorted(chip.id for chip in make_mesh(MeshShape(2, 32, 1)).devices.flat) == list(range(64))


def test_simulated_devices_stay_in_order() -> None:
    assert make_mesh(MeshShape()).devices.flatten().tolist() == jax.devices()


def test_chips_that_are_no_cuboid_or_slices_that_are_not_alike_come_in_their_order(monkeypatch) -> None:
    """JAX lays out neither; they train all the same."""
    holed = [chip for chip in chips(1) if chip.coords not in {(1, 1, 1), (2, 2, 2), (3, 3, 3), (0, 0, 1)}]
    unequal = [*chips(1), *(chip for chip in chips(2) if chip.slice_index == 1 and chip.coords[2] < 2)]
    for devices, shape in ((holed, MeshShape(15, 4, 1)), (unequal, MeshShape(2, 48, 1))):
        monkeypatch.setattr(jax, "devices", lambda devices=devices: devices)
        assert [chip.id for chip in make_mesh(shape).devices.flat] == [chip.id for chip in devices]
