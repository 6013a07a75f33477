"""How processes connect, and what is said when they cannot."""

from __future__ import annotations

import jax
import pytest

from vit_jax.training.devices.processes import join
from vit_jax.training.recipe.config import Processes
from vit_spec import VitportError

pytestmark = pytest.mark.jax_alone


@pytest.mark.parametrize("error", [OSError("no metadata server"), KeyError("SLURM_JOB_NODELIST"), RuntimeError("late")])
def test_whatever_a_connection_fails_by_is_one_sentence(monkeypatch, error):
    """Were any of them lost, every process would train by itself into one folder."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(VitportError, match=f"could not connect to 127.0.0.1:1 .*{error.args[0]}"):
        join(Processes("127.0.0.1:1", 2, 0))
