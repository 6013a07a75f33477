"""What is read of a compiled program. Oracle: counts by hand, of shortened texts and of programs compiled here."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.training.ahead.exchange import Exchange, exchanges
from vit_jax.training.ahead.operations import flops, traffic
from vit_jax.training.ahead.program import Array, Program, arrays_of, read_program
from vit_spec import VitportError

HERE = Path(__file__).parent
LOOP = (HERE / "loop.hlo").read_text()
"""A loop of 12 turns that slices a stack of weights, gathers and sums them, and keeps one row of results in a stack; as
XLA's compiler for TPUs prints programs, shortened."""


def all_flops(program: Program) -> float:
    return sum(times * flops(program, here, one) for here, one, times in program.executed())


def compiled(function, *shapes) -> Program:
    found = jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
    return read_program(found.as_text() or "")


def test_arrays_are_held_in_whole_tiles() -> None:
    """A tile of 8 x 128 covers the two minor axes, by the order of the layout; S(1) is memory on the chip."""
    (plain,) = arrays_of("bf16[4,197,64]{2,1,0:T(8,128)(2,1)}")
    assert plain == Array("bf16", (4, 197, 64), 0, (4, 200, 128))
    assert (plain.bytes, plain.held_bytes) == (2 * 4 * 197 * 64, 2 * 4 * 200 * 128)
    (turned,) = arrays_of("f32[197,4,64]{0,2,1:T(8,128)S(1)}")  # 197 is the minor axis
    assert (turned.held, turned.space) == ((256, 4, 64), 1)
    assert [each.dtype for each in arrays_of("(s32[]{:T(128)}, /*index=1*/pred[3]{0})")] == ["s32", "pred"]


def test_loops_count_as_often_as_they_run() -> None:
    program = read_program(LOOP)
    often = {one.name: times for _, one, times in program.executed()}
    assert (often["fusion.1"], often["all-reduce.7"], "dynamic-slice.4" in often) == (12, 1, False)
    silent = read_program(re.sub(r', backend_config=\{"known.*', "", LOOP))  # the counter and its end say it
    assert {one.name: times for _, one, times in silent.executed()} == often


def test_a_loop_whose_data_decide_how_often_it_runs_counts_once() -> None:
    endless = re.sub(r', backend_config=\{"known.*', "", LOOP).replace("direction=LT", "direction=NE")
    assert {times for _, _, times in read_program(endless).executed()} == {1}
    with pytest.raises(VitportError, match="not a compiled program"):
        read_program("HloModule nothing")


def test_collectives_are_told_by_kind_members_and_whether_they_run_beside_kernels() -> None:
    """A reduction whose part is taken in the same fusion is a reduce-scatter, and counts by the fusion's input, not by
    its tiles: (64, 32) fill 8 of 8 x 128."""
    assert exchanges(read_program(LOOP), 8) == [
        Exchange("all-reduce", 4 * 4 * 6 + 4, tuple(range(8)), 1, False),
        Exchange("collective-permute", 4 * 4 * 6, (0, 1), 1, True),
        Exchange("all-gather", 2 * 128 * 32, (0, 4), 12, True),
        Exchange("reduce-scatter", 2 * 64 * 32, (0, 1, 2, 3), 12, False),
    ]


@pytest.mark.parametrize(
    ("groups", "members"),
    [
        ("{{1,5},{0,4},{2,6},{3,7}}", (1, 5)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
        ("[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("mesh['a'=2,'b'=4] {'b':(2)2}", (0, 1)),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3)),
        ("mesh['a'=1,'b'=4,'c'=2], device_ids=([2,4]T(1,0)) {'c'}", (0, 4)),
    ],
)
def test_groups_of_devices_in_each_way_to_write_them(groups, members) -> None:
    """By hand. Turned, the order is 0, 4, 1, 5, 2, 6, 3, 7: along the first axis of 4 x 2, every second of them."""
    text = LOOP.replace("replica_groups={{0,1,2,3,4,5,6,7}}", f"replica_groups={groups}")
    assert text != LOOP
    assert next(one for one in exchanges(read_program(text), 8) if one.kind == "all-reduce").members == members


@pytest.mark.parametrize(
    ("pairs", "members"), [("{0,0},{1,2},{3,3},{2,1}", [(1, 2)]), ("{7,3}", [(7, 3)]), ("{0,0},{1,1}", [])]
)
def test_a_permutation_is_between_devices_that_differ(pairs, members) -> None:
    """Over three axes some chips keep their shard, the first among them; where all do, nothing is exchanged."""
    text = re.sub(r"source_target_pairs=\{.*?\}\}", f"source_target_pairs={{{pairs}}}", LOOP)
    assert text != LOOP
    found = exchanges(read_program(text), 8)
    assert [one.members for one in found if one.kind == "collective-permute"] == members


def test_of_a_stack_only_the_slices_are_read_and_written() -> None:
    """In tiles: (64, 32) of bfloat16 is 64 x 128 x 2 bytes. What lies on the chip crosses no bus."""
    program = read_program(LOOP)
    found = {one.name: traffic(program, here, one) for here, one, _ in program.executed()}
    assert found["fusion.1"] == 2 * 64 * 128 + 2 * 64 * 128 + 4  # the slice, the result, the counter
    assert found["fusion.3"] == 4 * 256 + 4  # one row written, the counter
    assert found["all-gather-done.1"] == found["tuple.3"] == 0


def test_products_count_with_loops_batches_and_transposes() -> None:
    """Two operations for a multiply-add. Oracle: the shapes, written out."""

    def scanned(x, weights, keys):
        x, _ = jax.lax.scan(lambda x, weight: (x @ weight, None), x, weights)  # 5 of 16 x 24 x 24
        return jnp.einsum("bnd,bmd->bnm", x.reshape(4, 4, 24), keys)  # 4 of 4 x 7 x 24

    expected = 5 * 2 * 16 * 24 * 24 + 4 * 2 * 4 * 7 * 24
    assert all_flops(compiled(scanned, (16, 24), (5, 24, 24), (4, 7, 24))) == expected


@pytest.mark.parametrize(("stride", "padding"), [(4, "VALID"), (1, "SAME")])
def test_convolutions_count_where_the_input_is(stride, padding) -> None:
    """Oracle: a loop in Python over outputs and kernel places; 2 images of 8 x 12 with 3 channels, 5 kernels."""

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    size = 4 if padding == "VALID" else 3
    text = jax.jit(convolve).lower(jnp.zeros((2, 8, 12, 3)), jnp.zeros((size, size, 3, 5))).as_text("hlo")
    low = 0 if padding == "VALID" else 1
    valid = 1
    for length in (8, 12):
        outputs = length // stride
        valid *= sum(0 <= at * stride - low + tap < length for at in range(outputs) for tap in range(size))
    assert all_flops(read_program(text)) == 2 * 2 * 3 * 5 * valid


def test_a_batched_product_written_as_a_convolution_counts_once() -> None:
    """So XLA writes it for TPUs: the batch of 6 is a dilated window, most of whose places meet no value."""
    assert all_flops(read_program((HERE / "product.hlo").read_text())) == 6 * 2 * 10 * 12 * 16
    q, k = (np.random.default_rng(0).standard_normal((6, rows, 16)).astype(np.float32) for rows in (10, 12))
    found = jax.lax.conv_general_dilated(
        q, k, (5,), [(0, 0)], lhs_dilation=(6,), dimension_numbers=("WNC", "WOI", "WNC")
    )
    np.testing.assert_allclose(found, q @ k.swapaxes(1, 2), rtol=0, atol=1e-5)  # it is that product indeed


def test_kernels_of_libraries_count_as_the_products_that_they_are() -> None:
    """As XLA writes them for NVIDIA GPUs: cuBLAS with room to work in, cuDNN's attention of 198 tokens forward (two
    products) and backward (five), and a kernel of Pallas with its authors' count."""
    program = read_program((HERE / "kernels.hlo").read_text())
    found = {one.name: flops(program, here, one) for here, one, _ in program.executed()}
    product = 8 * 12 * 198 * 198 * 64
    assert found["custom-call.1"] == 2 * 160 * 24 * 32
    assert (found["forward.1"], found["backward.1"]) == (2 * 2 * product, 5 * 2 * product)
    assert found["pallas.1"] == 13086228480
    crossed = {one.name: traffic(program, here, one) for here, one, _ in program.executed()}
    assert crossed["custom-call.1"] == 2 * (160 * 32 + 32 * 24 + 160 * 24)
    (summed,) = exchanges(program, 8)
    assert (summed.kind, summed.bytes, summed.asynchronous) == ("all-reduce", 2 * 160 * 24, False)
