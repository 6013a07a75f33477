"""Small programs compiled for TPUs on this machine. Oracle: arithmetic. Larger ones: test_compiled."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest

import conversion
from tests.vit_jax.training.ahead.small_programs import (
    BATCH,
    CLASSES,
    DEPTH,
    DIGITS,
    HEADS,
    HIDDEN,
    SIZE,
    WIDTH,
)
from vit_spec import forward_flops

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu, which is for Linux on x86-64"
)
PATCHES, PIXELS = (SIZE // 16) ** 2, 16 * 16 * 3
TOKENS = PATCHES + 1
IN_BLOCKS = DEPTH * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN)
KERNELS = IN_BLOCKS + PIXELS * WIDTH + WIDTH * CLASSES
FORWARD = IN_BLOCKS * TOKENS + DEPTH * 2 * TOKENS * TOKENS * WIDTH  # multiply-adds of an image's blocks
AROUND = 2 * PATCHES * PIXELS * WIDTH + 3 * WIDTH * CLASSES  # three passes, but no gradient of the images


@pytest.fixture(scope="module")
def programs() -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.vit_jax.training.ahead.small_programs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def moved(program: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """Bytes of the collectives, by kind and axes."""
    found: dict[tuple[str, ...], float] = {}
    for one in program["collectives"]:
        key = (one["kind"], *one["axes"])
        found[key] = found.get(key, 0.0) + one["bytes"]
    return found


@pytest.mark.parametrize("name", ["data and fsdp", "data and fsdp, v6e"])
def test_fsdp_gathers_twice_and_scatters_once(programs, name) -> None:
    """In bfloat16: kernels in blocks for each pass, the others once; gradients of all along fsdp, of their shards along
    data. Biases, norms and five positions are summed whole."""
    found = moved(programs[name])
    assert found["all-gather", "fsdp"] == 2 * (KERNELS + IN_BLOCKS)
    assert found["reduce-scatter", "fsdp"] == 2 * KERNELS
    assert found["all-reduce", "data"] == 2 * KERNELS / 2
    norms = 4 * 2 * (4 + 2)  # for the log: at most two numbers for each sharded array, of blocks (stacked) and outside
    assert found["all-reduce", "fsdp"] <= norms
    others = programs[name]["parameters"] - KERNELS
    assert 0 <= found["all-reduce", "data", "fsdp"] - 4 * others <= 8  # two numbers for the log
    assert len(found) == 5
    beside = sum(one["bytes"] for one in programs[name]["collectives"] if one["asynchronous"])
    assert beside > 0.5 * found["all-gather", "fsdp"]


def test_operations_are_those_of_three_passes_and_of_four_with_rematerialisation(programs) -> None:
    """What a block ends with is not recomputed: the backward pass does not need it."""
    images = BATCH / 4
    assert programs["data and fsdp"]["flops"] == 2 * images * (3 * FORWARD + AROUND)
    last = DEPTH * TOKENS * WIDTH * HIDDEN
    assert programs["data and fsdp, v6e"]["flops"] == 2 * images * (4 * FORWARD - last + AROUND)


def test_the_kernel_for_short_sequences_is_given_what_the_linear_layer_gives(programs) -> None:
    """No array by head is beside it, as beside the fused attention. It counts what the matrix units multiply, in whole
    tiles: two products forward, which are computed again, and five backward, of each image and head."""
    assert programs["data and fsdp"]["by head"] > 0
    assert programs["flash"]["by head"] == 0
    images = BATCH / 4
    in_layers = 2 * images * (3 * IN_BLOCKS * TOKENS + AROUND)
    tile = 8 * 128 * 128  # of 5 queries, 5 keys and 32 channels
    assert programs["flash"]["flops"] == in_layers + DEPTH * images * HEADS * (2 + 2 + 5) * 2 * tile


def test_data_sums_gradients_once(programs) -> None:
    """Those of kernels in bfloat16; of biases and norms in bfloat16 or float32, with two numbers for the log."""
    found = moved(programs["data"])
    others = programs["data"]["parameters"] - KERNELS
    assert found.keys() == {("all-reduce", "data")}
    assert 2 * others <= found["all-reduce", "data"] - 2 * KERNELS <= 4 * others + 8


def test_a_tensor_axis_sums_tokens_four_times_a_block(programs) -> None:
    """Shoeybi et al. 2019, section 3: after attention and MLP, forward and backward, in bfloat16. Parts of packed
    kernels are exchanged along it: a device's half of ``qkv``'s, for both passes and of its gradient."""
    found = moved(programs["data and tensor"])
    norms = 4 * 2 * 5  # for the log: two numbers for each array that it shards, four kernels and the bias of fc1
    assert 0 <= found["all-reduce", "tensor"] - DEPTH * 4 * 2 * (BATCH / 2) * TOKENS * WIDTH <= norms
    assert found["all-to-all", "tensor"] == DEPTH * 3 * 2 * 3 * WIDTH * WIDTH / 2
    assert {key[1:] for key in found} == {("tensor",), ("data",)}


def test_over_three_axes_shards_are_permuted_between_devices_that_differ(programs) -> None:
    """The first device keeps its own. Tokens are summed along the tensor axis as without FSDP; measured, 352 bytes more
    of norms, for the log."""
    program = programs["data, fsdp and tensor"]
    found = moved(program)
    assert found["collective-permute", "fsdp", "tensor"] > 0
    assert 0 <= found["all-reduce", "tensor"] - DEPTH * 4 * 2 * (BATCH / 4) * TOKENS * WIDTH <= 512
    assert all(one["seconds"] > 0 and one["axes"] for one in program["collectives"])


def test_pmap_sums_all_gradients_in_float32(programs) -> None:
    assert moved(programs["pmap"]) == {("all-reduce", "data"): 4 * programs["pmap"]["parameters"] + 8}


def test_inference_exchanges_nothing(programs) -> None:
    """Chips share the images, and each has all weights."""
    found = programs["inference"]
    assert found["collectives"] == []
    assert found["flops"] == BATCH / 4 * forward_flops(conversion.load(DIGITS).config)
