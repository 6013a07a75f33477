"""Several processes of one run, told or found out, before JAX looks at any device."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.training.recipe.config import Processes
from vit_spec import VitportError

_LONGER = 600
"""Seconds that JAX would wait beyond our own limit."""
_SENTENCE = 600
"""Bytes of UTF-8 that a process can tell the others at a time."""


def join(options: Processes) -> None:
    """Meets the other processes, where there are any.

    Raises:
        VitportError: if they cannot be met, or not in time.
    """
    shown = cluster(os.environ)
    if options.coordinator is None and shown is None:
        return
    failed: list[Exception] = []

    def meet() -> None:
        try:
            jax.distributed.initialize(
                options.coordinator, options.count, options.index, initialization_timeout=options.wait + _LONGER
            )
        except Exception as error:  # a launcher that JAX cannot ask fails in its own way
            failed.append(error)

    # After its own limit JAX ends the process with a trace of its insides: so it is asked aside, and left behind.
    meeting = threading.Thread(target=meet, daemon=True)
    meeting.start()
    meeting.join(options.wait)
    where = options.coordinator or f"what {shown} shows"
    if meeting.is_alive():
        raise VitportError(
            f"The processes of this run did not all meet at {where} within {options.wait} seconds: start all of them, "
            "or see that they reach each other."
        )
    if failed:
        told = " ".join(str(failed[0]).split())[:300]
        raise VitportError(f"The processes of this run did not meet at {where} ({told}): start all of them.")


def cluster(environment: Mapping[str, str]) -> str | None:
    """Which launcher shows that this process is one of several; JAX asks it for the rest."""
    counts = {"SLURM": "SLURM_NTASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}
    for name, variable in counts.items():
        value = environment.get(variable, "1")
        if value.isdigit() and int(value) > 1 and (name != "SLURM" or "SLURM_PROCID" in environment):
            return name
    if "," in environment.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_COORDINATOR_ADDRESS" in environment:
        return "the TPU pod"
    if "JOB_COMPLETION_INDEX" in environment and "KUBERNETES_SERVICE_HOST" in environment:
        return "Kubernetes"
    return None


def told_by_all(text: str) -> list[str]:
    """What each process says, in their order; each must ask at the same point, and what is too long is cut."""
    if jax.process_count() == 1:
        return [text]
    own = np.frombuffer(text.encode()[:_SENTENCE].ljust(_SENTENCE, b"\0"), np.uint8)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in multihost_utils.process_allgather(own)]


def together(act: Callable[[], None]) -> None:
    """What each process does at the same point; where one cannot, all stop.

    Raises:
        VitportError: what the first of them raised, in all of them: none waits for one that has left.
    """
    own: VitportError | None = None
    try:
        act()
    except VitportError as error:
        own = error
    for index, told in enumerate(told_by_all("" if own is None else str(own))):
        if told:
            raise own or VitportError(f"Process {index} stopped: {told}")
