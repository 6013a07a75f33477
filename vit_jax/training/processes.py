"""Several processes of one run, told or found out, before JAX looks at any device."""

from __future__ import annotations

import os
from collections.abc import Mapping

import jax

from vit_jax.training.config import Processes
from vit_spec import VitportError


def join(options: Processes) -> None:
    """Meets the other processes, where there are any.

    Raises:
        VitportError: if they cannot be met.
    """
    try:
        if options.coordinator is not None:
            jax.distributed.initialize(options.coordinator, options.count, options.index)
        elif cluster(os.environ) is not None:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())[:300]
        where = options.coordinator or f"what {cluster(os.environ)} shows"
        raise VitportError(f"The processes of this run did not meet at {where} ({told}): start all of them.") from error


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
