"""Mistakes on the way back alone, all found where they are and nothing else accused.

``python -m tests.vit_parity.porting.gradient_proof`` prints what docs/reports/porting.md says.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.vit_parity.porting.gradient_proof import tally
from tests.vit_parity.porting.pairs import NAMES

PAGE = Path(__file__).parents[3] / "docs" / "reports" / "porting.md"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_on_the_way_back_is_found_where_it_is_and_nothing_else_is_accused(name) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = tally(name)
    finally:
        torch.set_num_threads(threads)
    assert not found.lost, "\n".join(found.lost)
    assert not found.wrong, "\n".join(found.wrong)
    assert found.planted >= 40
    assert found.row in PAGE.read_text(encoding="utf-8")
