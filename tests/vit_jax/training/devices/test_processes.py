"""How processes connect, and what is said when they cannot."""

from __future__ import annotations

import re

import jax
import pytest

from vit_jax.training.devices.processes import LostProcessError, join, noticing_lost_processes
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


@pytest.mark.parametrize("error", [
    ValueError("UNKNOWN: Gloo AllGather failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:8086"),
    RuntimeError("INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited"),
    RuntimeError("UNAVAILABLE: Failed to connect to remote host: Connection refused"),
    RuntimeError("DEADLINE_EXCEEDED: Barrier timed out. Barrier_id: orbax"),
])  # fmt: skip
def test_a_collective_that_fails_means_that_another_process_has_ended(error, monkeypatch):
    """The first is JAX 0.10.2 on a CPU; the others are of NCCL, of gRPC and of the service that joins processes."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with (
        pytest.raises(LostProcessError, match=r"^Another process of this run has ended, and its log says why \("),
        noticing_lost_processes(),
    ):
        raise error
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    with pytest.raises(type(error), match=re.escape(str(error))), noticing_lost_processes():
        raise error


def test_errors_of_other_kinds_stay_what_they_are(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for error in (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), VitportError("gloo"), KeyError("mesh")):
        with pytest.raises(type(error)), noticing_lost_processes():
            raise error
