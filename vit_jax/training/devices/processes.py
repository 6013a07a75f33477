"""Several processes of one run: connecting them, and collective messages and errors."""

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
"""Seconds that JAX waits beyond our own limit."""
_MESSAGE = 600
"""Bytes of UTF-8 of the longest message."""


def join(options: Processes) -> None:
    """Connects to the other processes, if there are any. Call it before JAX looks at any device.

    Raises:
        VitportError: if they cannot be reached in time.
    """
    launcher = detect_launcher(os.environ)
    if options.coordinator is None and launcher is None:
        return
    failed: list[Exception] = []

    def connect() -> None:
        try:
            jax.distributed.initialize(
                options.coordinator, options.count, options.index, initialization_timeout=options.wait + _LONGER
            )
        except Exception as error:  # each launcher fails in its own way
            failed.append(error)

    # After its own limit JAX ends the process with a stack trace: so it connects in a thread, which is abandoned.
    connecting = threading.Thread(target=connect, daemon=True)
    connecting.start()
    connecting.join(options.wait)
    where = options.coordinator or f"the coordinator that {launcher} names"
    if connecting.is_alive():
        raise VitportError(
            f"Not all processes of this run connected to {where} within {options.wait} seconds: start all of them, and "
            "check that they can reach each other."
        )
    if failed:
        reason = " ".join(str(failed[0]).split())[:300]
        raise VitportError(f"The processes of this run could not connect to {where} ({reason}): start all of them.")


def detect_launcher(environment: Mapping[str, str]) -> str | None:
    """The launcher that started this process as one of several; JAX asks it for the rest."""
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


def gather_messages(text: str) -> list[str]:
    """The messages of all processes, in order; long ones are truncated. A collective: all processes must call it."""
    if jax.process_count() == 1:
        return [text]
    own = np.frombuffer(text.encode()[:_MESSAGE].ljust(_MESSAGE, b"\0"), np.uint8)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in multihost_utils.process_allgather(own)]


def raise_on_all(act: Callable[[], object], kind: type[VitportError] = VitportError) -> None:
    """Runs ``act`` in each process; if it raises in one, all raise. A collective: all processes must call it.

    Args:
        kind: what those raise in which ``act`` did not.

    Raises:
        VitportError: the first error, in all processes, so that none waits for one that has stopped.
    """
    own: VitportError | None = None
    try:
        act()
    except VitportError as error:
        own = error
    for index, message in enumerate(gather_messages("" if own is None else str(own))):
        if message:
            raise own or kind(f"Process {index} stopped: {message}")
