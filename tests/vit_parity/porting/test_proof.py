"""Mistakes planted in ports, all found at their layers and none called by a wrong name; sound ports accused of nothing.

``python -m tests.vit_parity.porting.proof`` runs all and prints a table.
"""

from __future__ import annotations

import pytest
import torch

from tests.vit_parity.porting.kinds import KINDS, planted
from tests.vit_parity.porting.pairs import NAMES, pair
from tests.vit_parity.porting.proof import tally

QUICK = ("epsilon 1e-3 in", "block-int8 in", "GELU by erf", "no mask", "first position")
NAMED = 0.6
"""Of what is planted, the least that must be named; the others are located."""


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small only wait for each other on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_few_mistakes_are_found_at_their_layers_and_named() -> None:
    model = pair("gpt2")
    mistakes = list(planted(model))
    found = tally(model, [next(it for it in mistakes if it.name.startswith(name)) for name in QUICK])
    assert not found.lost
    assert not found.wrong
    assert found.named == len(QUICK) - 1  # what int8 does has no name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_is_found_at_its_layer_most_are_named_and_none_wrongly(name) -> None:
    found = tally(pair(name), planted(pair(name)))
    assert not found.lost, "\n".join(found.lost)
    assert not found.wrong, "\n".join(found.wrong)
    assert found.planted >= 40
    assert found.named >= NAMED * found.planted


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_sound_port_is_accused_of_nothing(name) -> None:
    found = pair(name).compared()
    assert found.equal, str(found)
    assert max(row.alone or 0 for row in found.rows) < 1e-14


def test_mistakes_are_of_all_kinds() -> None:
    assert {kind.name for kind in KINDS} >= {"block-int8", "epsilon 1e-3", "product in bfloat16", "training mode"}
