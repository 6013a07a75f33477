"""Several processes of one run: connecting them, and collective messages and errors."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.training.recipe.config import Processes
from vit_spec import VitportError

_LONGER = 600
"""Seconds that JAX waits beyond our own limit."""
_GRACE = 2.0
"""Seconds that the first process outlives a failed collective."""
_MESSAGE = 600
"""Bytes of UTF-8 of the longest message."""
_LOST = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|socket closed|broken pipe|coordination.?service|heartbeat|barrier",
    re.IGNORECASE,
)
"""What the errors of collectives speak of, whose kinds differ among backends and versions of JAX."""

_LATER = re.compile(r"DEADLINE_EXCEEDED|UNAVAILABLE|timed? ?out", re.IGNORECASE)
"""What JAX says of processes that have not come yet."""


class LostProcessError(VitportError):
    """Another process of this run has ended, so this one cannot go on."""


class UnmetProcessesError(VitportError):
    """The processes of this run did not all come; they may when they are started again."""


@contextmanager
def noticing_lost_processes() -> Iterator[None]:
    """Says of a collective that failed that another process has ended.

    Collectives fail at once on a CPU and mostly on GPUs. On TPUs they wait: there JAX ends the process, when the other
    has given no sign of life for 100 seconds. It also ends all others, at once, when the first has ended.

    Raises:
        LostProcessError: instead of what the collective raised.
    """
    try:
        yield
    except VitportError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        if jax.process_count() == 1 or _LOST.search(reason) is None:
            raise
        raise LostProcessError(
            f"Another process of this run has ended, and its log says why ({reason[:200]}): start all of them again, "
            "and they continue from the newest checkpoint."
        ) from error


def join(options: Processes) -> None:
    """Connects to the other processes, if there are any. Call it before JAX looks at any device.

    Raises:
        UnmetProcessesError: if they cannot be reached in time.
        VitportError: if they never can, for what was given contradicts itself.
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
        raise UnmetProcessesError(
            f"Not all processes of this run connected to {where} within {options.wait} seconds: start all of them, and "
            "check that they can reach each other."
        )
    if failed:
        reason = " ".join(str(failed[0]).split())[:300]
        # What waiting does not cure must not have a restart loop begin again.
        kind = UnmetProcessesError if _LATER.search(reason) else VitportError
        raise kind(f"The processes of this run could not connect to {where} ({reason}): start all of them.")


def end_alone(status: int) -> NoReturn:
    """Ends this process without JAX, which would wait for one that has ended, and then abort."""
    if jax.process_index() == 0:  # the others need its service until they have ended too
        time.sleep(_GRACE)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


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
