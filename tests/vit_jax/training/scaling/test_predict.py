"""Collectives, times and the choice of a mesh. Oracle: arithmetic written out here; every mesh, tried one by one."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.fleets import VIT_22B
from vit_jax.training.devices.chips import H100, V5E, V6E
from vit_jax.training.recipe.execution import MeshShape
from vit_jax.training.scaling import Assumptions, Collective, Step, collectives, predict, rank
from vit_jax.training.scaling.collectives import seconds
from vit_spec import VitportError, get_model

BASE = get_model("vit_base_patch16_224").config
PARAMETERS = 86_567_656
SMALL = 12 * 6 * 768 + 4 * 768 + 1000  # what FSDP leaves whole: see test_step.py


def by_purpose(step: Step) -> dict[tuple[str, tuple[str, ...]], tuple[str, float]]:
    return {(one.purpose, one.axes): (one.kind, one.total) for one in collectives(step)}


def test_data_sums_every_gradient() -> None:
    found = by_purpose(Step(BASE, 64, MeshShape(8, 1, 1)))
    assert found == {("gradients", ("data", "fsdp")): ("all-reduce", 2 * PARAMETERS)}


def test_fsdp_gathers_weights_and_scatters_gradients() -> None:
    found = by_purpose(Step(BASE, 64, MeshShape(2, 4, 1), remat="full", accumulation=2))
    blocks = 12 * (4 * 768 * 768 + 2 * 768 * 3072 + 3 * 768 + 3072)
    cut = PARAMETERS - SMALL
    assert found == {
        ("weights", ("fsdp",)): ("all-gather", 2 * 2 * cut),
        ("weights again", ("fsdp",)): ("all-gather", 2 * 2 * blocks),
        ("gradients", ("fsdp",)): ("reduce-scatter", 2 * 2 * cut),
        ("gradients", ("data",)): ("all-reduce", 2 * 2 * cut // 4),
        ("gradients", ("data", "fsdp")): ("all-reduce", 2 * 2 * SMALL),
    }


def test_a_scan_gathers_again_and_float32_sums_are_twice_as_many_bytes() -> None:
    narrow = by_purpose(Step(BASE, 64, MeshShape(2, 4, 1), scan=True))
    wide = by_purpose(Step(BASE, 64, MeshShape(2, 4, 1), scan=True, gradient_sum="float32"))
    for at, (kind, size) in wide.items():
        assert (kind, size) == (narrow[at][0], narrow[at][1] * (2 if at[0] == "gradients" else 1))
    assert ("weights again", ("fsdp",)) in wide
    assert ("weights again", ("fsdp",)) not in by_purpose(Step(BASE, 64, MeshShape(2, 4, 1)))
    float32 = Step(BASE, 64, MeshShape(8, 1, 1), "float32")
    assert by_purpose(float32) == {("gradients", ("data", "fsdp")): ("all-reduce", 4 * PARAMETERS)}


@pytest.mark.parametrize(("remat", "sums", "exchanges"), [("none", 4, 2), ("full", 5, 3)])
def test_the_tensor_axis_sums_activations_and_exchanges_packed_kernels(remat: str, sums: int, exchanges: int) -> None:
    tokens = 16 * 197 * 768 * 2  # images of one device's part, bytes
    step = Step(BASE, 64, MeshShape(4, 1, 2), remat=remat)  # type: ignore[arg-type]
    found = by_purpose(step)
    assert found["sums of layers", ("tensor",)] == ("all-reduce", 12 * sums * tokens)
    kernels = [one for one in collectives(step) if one.purpose == "packed layers"]
    assert [(one.kind, one.total) for one in kernels] == [
        ("all-to-all", 12 * exchanges * 2 * 3 * 768 * 768 / 2),
        ("all-gather", 12 * 2 * 3 * 768),  # the gradients of biases, which lie whole
    ]
    assert all(one.waits == (one.purpose == "sums of layers") for one in collectives(step))


def test_rings_within_a_domain_then_between_domains() -> None:
    gather = Collective("", "all-gather", ("fsdp",), 1e9, 3, False)
    reduce = Collective("", "all-reduce", ("data", "fsdp"), 1e9, 1, False)
    assert seconds(gather, MeshShape(1, 64, 1), H100) == pytest.approx(3 * 1e9 * (7 / 8 / 450e9 + 1 / 8 * 7 / 8 / 50e9))
    two_pods = 1e9 * 255 / 256 / 200e9 + 1e9 / 256 * 1 / 2 / 3.125e9
    assert seconds(reduce, MeshShape(2, 256, 1), V5E) == pytest.approx(2 * two_pods)
    two_nodes = 1e9 * 3 / 4 / 450e9 + 1e9 / 4 * 1 / 2 / 50e9  # four of a node's eight: the tensor axis has the others
    assert seconds(gather, MeshShape(1, 8, 2), H100) == pytest.approx(3 * two_nodes)
    exchange = Collective("", "all-to-all", ("tensor",), 1e9, 1, False)  # 8e9 on all eight
    assert seconds(exchange, MeshShape(1, 1, 8), V5E) == pytest.approx(8e9 / 4 * 7 / 8 / 100e9)
    three_parts = 1e9 * 3 / 4 / 450e9 + 1e9 / 4 * 2 / 3 / 50e9  # twelve GPUs are three times four of a node
    assert seconds(gather, MeshShape(1, 12, 1), H100) == pytest.approx(3 * three_parts)


@pytest.mark.parametrize("sizes", [(2, 4), (4, 4), (8, 8), (8, 16), (16, 16)])
def test_a_torus_carries_a_gather_as_its_description_says(sizes: tuple[int, int]) -> None:
    """Oracle: :mod:`vit_jax.training.ahead.topology`, by the places of the chips. The first along the longer axis."""
    from tests.vit_jax.training.ahead.test_topology import chips
    from vit_jax.training.ahead.topology import Topology

    short, long = sizes
    slice_ = Topology("v6e", V6E, (long, short), chips(long, short))
    gather = Collective("", "all-gather", ("fsdp",), 1e9, 1, False)
    for fsdp in (2**power for power in range(1, (short * long).bit_length())):
        expected = 1e9 * slice_.gather_seconds(slice_.devices[:fsdp])
        assert seconds(gather, MeshShape(short * long // fsdp, fsdp, 1), V6E) == pytest.approx(expected), fsdp


def test_parts_of_a_step_add_up() -> None:
    """TPUs' compiler has nothing run beside sums of gradients, that for GPUs does."""
    step = Step(BASE, 1024, MeshShape(8, 8, 1))
    summed = [one for one in collectives(step) if one.kind != "all-gather"]
    assert {one.kind for one in summed} == {"all-reduce", "reduce-scatter"}
    alone = sum(seconds(one, step.mesh, V5E) for one in summed)
    assert predict(step, V5E, Assumptions(bandwidth=1.0)).waited_for == pytest.approx(alone)
    assert predict(step, H100).waited_for == 0
    found = predict(step, V5E, Assumptions(products=0.5, bandwidth=1.0))
    assert found.products == pytest.approx(
        3 * 2 * 17.564e9 * 1024 / 64 / (197e12 * 0.5), rel=3e-5
    )  # 17.56383, rounded: 1e-5
    assert found.seconds == max(found.products + found.traffic, found.beside) + found.waited_for
    low, high = found.bounds
    assert low < found.seconds < high
    assert found.mfu == pytest.approx(0.5 * found.products / found.seconds, rel=1e-12)


@pytest.mark.parametrize("chip", [V5E, V6E, H100], ids=lambda chip: chip.name)
def test_no_mesh_is_faster_than_the_chosen_one(chip) -> None:
    chosen = rank(BASE, 4096, 64, chip)[0]
    assert chosen.fits
    powers = [1, 2, 4]  # the tensor axis divides 12 heads
    for tensor, fsdp, remat, parts in itertools.product(powers, [2**n for n in range(7)], ("none", "full"), powers):
        if 64 % (tensor * fsdp) == 0 and (chip is H100 or 768 % (8 * fsdp) == 0):  # whole tiles, on TPUs
            mesh = MeshShape(64 // (tensor * fsdp), fsdp, tensor)
            kind = "cudnn" if chip is H100 else "fused"
            step = Step(BASE, 4096, mesh, remat=remat, accumulation=parts, attention=kind, scan=True)
            other = predict(step, chip)
            assert not other.fits or other.seconds >= chosen.seconds / 1.02


def test_fsdp_leaves_whole_tiles_on_tpus() -> None:
    """768 channels in tiles of 8 rows, of 32 chips 24 each, of 64 only 12; GPUs have none."""
    assert {one.step.mesh.fsdp for one in rank(BASE, 4096, 256, V5E)} == {1, 2, 4, 8, 16, 32}
    assert 64 in {one.step.mesh.fsdp for one in rank(BASE, 4096, 256, H100)}


def test_what_does_not_fit_is_not_chosen() -> None:
    assert rank(VIT_22B, 4096, 8, V5E) == []  # 16 bytes for each of 22e9 parameters, and 8 x 16 GB
    assert rank(VIT_22B, 4096, 1024, V5E)


def test_any_number_of_devices_is_shared_out() -> None:
    """Three hosts of eight: 24 devices; 12 heads allow tensor axes of 1, 2, 3, 4, 6 and 12, of which all divide 24."""
    found = rank(BASE, 24 * 96, 24, H100)
    assert all(one.step.devices == 24 and one.fits for one in found)
    assert {one.step.mesh.tensor for one in found} >= {1, 2, 3, 4, 6}
    slower = [one.seconds for one in found]
    assert all(one.seconds <= 1.02 * min(slower) for one in found[:1])
    assert slower[-1] == max(slower)
    with pytest.raises(VitportError, match="devices=0 is none"):
        rank(BASE, 4096, 0, V5E)
