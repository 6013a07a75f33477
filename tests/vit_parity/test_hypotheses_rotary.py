"""Mistakes with rotary positions, planted in PyTorch: each is the one cause that is named, where it first shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import vit_torch
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.small_configs import BASE
from tests.vit_parity.runs import random_batch, replayed_model, run_torch
from vit_parity import Capture, capture_torch
from vit_parity.explain import explain
from vit_spec import ViTConfig
from vit_spec.vit.rotary import AxialRotary, DinoV3Rotary, MixedRotary, Rotary, turns

# Six rows and three columns: neither square, nor turned into itself by swapped axes.
FEW = BASE.replace(
    depth=1, image_size=(24, 12), register_tokens=2, num_heads=3, pos_embed="none", rotary=DinoV3Rotary()
)
DINOV3 = FEW.replace(rotary=DinoV3Rotary(periods=(1.1, 3.7)))
EVA02 = BASE.replace(depth=1, image_size=(24, 12), rotary=AxialRotary(reference_grid=(4, 4)))
PERCEPTION = EVA02.replace(rotary=AxialRotary(order="wh", offset=1.0))
MIXED = FEW.replace(rotary=MixedRotary())
Table = tuple[torch.Tensor, torch.Tensor]


def weights_of(config: ViTConfig) -> Checkpoint:
    return Checkpoint.of(config, random_params(config, 4, np.float32))


def named(run: Capture, weights: Checkpoint) -> tuple[str, set[str]]:
    """Where the only fault is, and what is said of it."""
    found = explain(run, replayed_model(weights, run.images))
    assert len(found) == 1, [entry.sentence for entry in found]
    (first,) = found
    assert first.after is not None and first.after <= first.bound < first.before / 4, first.sentence
    return first.layer, {first.cause or "", *first.alternatives}


OTHERS: dict[str, tuple[ViTConfig, Rotary | None]] = {
    "leaves out the rotary positions": (FEW, None),
    "uses theta 10000": (FEW, DinoV3Rotary(theta=10000.0)),
    "counts positions as EVA-02 does": (FEW, AxialRotary(pairs="halves")),
    "uses the periods of theta": (DINOV3, DinoV3Rotary()),
    "rounds the periods to bfloat16": (DINOV3, DinoV3Rotary(periods=(1.1015625, 3.703125))),
    "uses theta 100": (EVA02, AxialRotary(theta=100.0, reference_grid=(4, 4))),
    "counts patches from 1": (EVA02, AxialRotary(offset=1.0, reference_grid=(4, 4))),
    "counts patches from 0.5": (EVA02, AxialRotary(offset=0.5, reference_grid=(4, 4))),
    "counts patches from 0": (PERCEPTION, AxialRotary(order="wh")),
    "does not scale positions to the reference grid": (EVA02, AxialRotary()),
    "takes columns for rows in the angles": (PERCEPTION, AxialRotary(offset=1.0)),
    "turns other pairs of channels": (EVA02, AxialRotary(pairs="halves", reference_grid=(4, 4))),
}


@pytest.mark.parametrize("cause", OTHERS)
def test_other_rotary_positions_are_named(cause: str) -> None:
    right, wrong = OTHERS[cause]
    weights = weights_of(right)
    run = run_torch(replace(weights, config=right.replace(rotary=wrong)), random_batch(right), title="B")
    layer, causes = named(run, weights)
    assert layer == "blocks.0.attn.softmax"
    assert cause in causes


def angles(config: ViTConfig, place: Callable[[np.ndarray, int], np.ndarray], turn: float = 2 * np.pi) -> np.ndarray:
    """DINOv3's, with other coordinates: (N, d / 2)."""
    rows, columns = config.grid_size
    exponents = np.arange(config.head_dim // 4) / (config.head_dim // 4)
    y, x = np.divmod(np.arange(config.num_patches), columns)
    both = [turn * np.outer(place(at, n), 100.0**-exponents) for at, n in ((y, rows), (x, columns))]
    prefix = np.zeros((config.num_prefix_tokens, config.head_dim // 2))
    return np.concatenate([prefix, np.concatenate(both, axis=1)])


def own(config: ViTConfig) -> np.ndarray:
    return angles(config, lambda at, n: 2 * (at + 0.5) / n - 1)


def shifted(config: ViTConfig) -> np.ndarray:
    """The first patches' angles for the prefix tokens."""
    table, prefix = own(config), config.num_prefix_tokens
    return np.concatenate([table[prefix : 2 * prefix], table[prefix:]])


ANGLES: dict[str, Callable[[ViTConfig], np.ndarray]] = {
    "takes the corners of patches for their centres": lambda c: angles(c, lambda at, n: 2 * at / n - 1),
    "counts positions from 0 to 1, not from -1": lambda c: angles(c, lambda at, n: (at + 0.5) / n),
    "scales positions by the longer side": lambda c: angles(c, lambda at, n: 2 * (at + 0.5) / max(c.grid_size) - 1),
    "scales positions by the shorter side": lambda c: angles(c, lambda at, n: 2 * (at + 0.5) / min(c.grid_size) - 1),
    "leaves out 2 pi in the angles": lambda c: angles(c, lambda at, n: 2 * (at + 0.5) / n - 1, 1.0),
    "turns queries and keys the other way": lambda c: -own(c),
    "turns the prefix tokens like the first patches": shifted,
}


def run_with(weights: Checkpoint, table: Table, turned: Callable[..., torch.Tensor] | None = None) -> Capture:
    """A run whose blocks read other cosines and sines."""
    model = vit_torch.create_model(weights=weights).eval()
    for block in model.get_submodule("blocks").children():
        rotary = block.get_submodule("attn.rotary")
        rotary.cos.values, rotary.sin.values = (torch.nn.Buffer(part, persistent=False) for part in table)
        if turned is not None:
            rotary.forward = lambda x: turned(x, *table)
    return capture_torch(model, random_batch(weights.config), "B")


@pytest.mark.parametrize("cause", ANGLES)
def test_other_coordinates_of_dinov3_are_named(cause: str) -> None:
    table = torch.tensor(ANGLES[cause](FEW))
    layer, causes = named(run_with(weights_of(FEW), (table.cos(), table.sin())), weights_of(FEW))
    assert layer == "blocks.0.attn.softmax"
    assert cause in causes


def test_the_own_angles_are_no_fault() -> None:
    """The table written once more, with numpy: nothing is explained."""
    table = torch.tensor(own(FEW))
    run = run_with(weights_of(FEW), (table.cos(), table.sin()))
    assert explain(run, replayed_model(weights_of(FEW), run.images)) == ()


def test_a_coarse_table_is_named() -> None:
    cos, sin = (torch.tensor(part).bfloat16().double() for part in turns(DinoV3Rotary(), FEW.grid_size, 8, 3))
    layer, causes = named(run_with(weights_of(FEW), (cos, sin)), weights_of(FEW))
    assert layer == "blocks.0.attn.softmax"
    assert "rounds cosines and sines to bfloat16" in causes


def test_pairs_that_do_not_fit_the_table_are_named() -> None:
    """The table by halves, the turn by neighbours: no rotation, as one library once did to DINOv3."""

    def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        partner = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        return x * torch.cat([cos, cos], -1).to(x) + partner * torch.cat([sin, sin], -1).to(x)

    table = torch.tensor(own(FEW))
    layer, causes = named(run_with(weights_of(FEW), (table.cos(), table.sin()), turned), weights_of(FEW))
    assert layer == "blocks.0.attn.softmax"
    assert "turns other pairs of channels than its table of angles is laid out for" in causes


BEIT = BASE.replace(depth=1, pos_embed="none", relative_bias=True, num_heads=3)
TABLE = "blocks.0.attn.relative_position_bias_table"
BIASES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "leaves out the biases by relative position": np.zeros_like,
    "takes relative positions from key to query": lambda x: np.concatenate([x[:-3][::-1], x[-3:]]),
    "swaps the biases from and to the class token": lambda x: np.concatenate([x[:-3], x[-2:-4:-1], x[-1:]]),
}


@pytest.mark.parametrize("cause", BIASES)
def test_mistakes_with_biases_by_relative_position_are_named(cause: str) -> None:
    """Planted in the table: its offsets in the opposite order are those from key to query."""
    weights = weights_of(BEIT)
    params = dict(weights.params) | {TABLE: BIASES[cause](weights.params[TABLE]).copy()}
    layer, causes = named(run_torch(Checkpoint.of(BEIT, params), random_batch(BEIT), title="B"), weights)
    assert layer == "blocks.0.attn.softmax"
    assert cause in causes


def test_swapped_axes_of_learned_frequencies_are_named() -> None:
    weights = weights_of(MIXED)
    name = "blocks.0.attn.rotary.freqs"
    params = dict(weights.params) | {name: weights.params[name][::-1].copy()}
    layer, causes = named(run_torch(Checkpoint.of(MIXED, params), random_batch(MIXED), title="B"), weights)
    assert layer == "blocks.0.attn.softmax"
    assert "takes columns for rows in the angles" in causes


RELPOS = FEW.replace(rotary=None, relative_hidden_dim=7)
ROWS, COLUMNS = RELPOS.grid_size
OFFSETS = np.stack(np.meshgrid(np.arange(1 - ROWS, ROWS), np.arange(1 - COLUMNS, COLUMNS), indexing="ij"), -1)
COORDINATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "takes relative positions from key to query": lambda o: -np.sign(o) * np.log(1 + np.abs(o)),
    "gives the network of biases the columns first": lambda o: (np.sign(o) * np.log(1 + np.abs(o)))[..., ::-1],
    "gives the network of biases offsets that are not log-spaced": lambda o: o,
    "scales the offsets to 8 at the window's edge, as Swin version 2 does": lambda o: (
        np.sign(o) * np.log(1 + np.abs(8 * o / (ROWS - 1, COLUMNS - 1)))
    ),
}


@pytest.mark.parametrize("cause", COORDINATES)
def test_mistakes_with_a_network_of_biases_are_named(cause: str) -> None:
    """Planted in what the network reads."""
    weights = weights_of(RELPOS)
    model = vit_torch.create_model(weights=weights).eval()
    wrong = torch.tensor(COORDINATES[cause](OFFSETS.astype(float)).reshape(-1, 2).copy())
    model.get_submodule("blocks.0.attn.rel_pos.coordinates").values = torch.nn.Buffer(wrong, persistent=False)
    layer, causes = named(capture_torch(model, random_batch(RELPOS), "B"), weights)
    assert layer == "blocks.0.attn.softmax"
    assert cause in causes
