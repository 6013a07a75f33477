"""Mistakes planted in ports, all found at their layers and none called by a wrong name; sound ports accused of nothing.

``python -m tests.vit_parity.porting.proof`` prints what docs/reports/porting.md says.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.vit_parity.porting.kinds import KINDS, planted
from tests.vit_parity.porting.pairs import NAMES, pair
from tests.vit_parity.porting.proof import TWICE, tally, two_at_a_time
from tests.vit_parity.porting.sound import SOUND

QUICK = ("epsilon 1e-3 in", "block-int8 in", "GELU by erf", "no mask", "first position")
NAMED = 0.6
"""Of what is planted, the least that must be named; the others are located."""
PAGE = Path(__file__).parents[3] / "docs" / "reports" / "porting.md"


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
    assert found.located == len(QUICK)
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
    assert found.row in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_mistakes_in_one_model_are_both_found_and_nothing_else_is_accused(name) -> None:
    found = tally(pair(name), two_at_a_time(pair(name), TWICE, 0))
    assert not found.wrong, "\n".join(found.wrong)
    assert not found.lost, "\n".join(found.lost)


@pytest.mark.slow
@pytest.mark.parametrize("sound", SOUND, ids=str)
def test_a_sound_port_is_accused_of_nothing_however_it_is_run(sound) -> None:
    found = sound.compared()
    assert found.equal, str(found)
    assert set(pair(sound.model).layers.values()) <= {row.name.partition("[")[0] for row in found.rows}
    if (
        sound.dtype == "float32"
    ):  # a scan's constants stay in float32, so that a norm's epsilon is off by 2e-8 of itself
        assert found.exact
        assert max(row.alone or 0 for row in found.rows) < (1e-11 if sound.blocks == "scan" else 1e-14)
    assert f"In {len(SOUND)} ways" in PAGE.read_text(encoding="utf-8")


def test_mistakes_are_of_all_kinds() -> None:
    assert {kind.name for kind in KINDS} >= {"block-int8", "epsilon 1e-3", "product in bfloat16", "training mode"}
