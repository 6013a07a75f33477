"""Compiles a run's step for chips that are not here."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from jax.sharding import Mesh

from vit_jax.training.ahead.program import Program, read_program
from vit_jax.training.ahead.topology import Topology
from vit_jax.training.recipe.config import TrainConfig
from vit_jax.training.run.setup import Setup, set_up
from vit_spec import VitportError

_USED = re.compile(
    r"(?:Used |required for HLO temporaries \()(?P<used>[\d.]+)(?P<unit>[KMGT])"
    r"(?: of |\) exceeds available HBM \()(?P<limit>[\d.]+)(?P<limit_unit>[KMGT])"
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Bytes of one chip's main memory that a program takes, as its compiler has laid it out."""

    state: int
    """Parameters, moments, averages and the batch: what the program is given."""
    results: int
    """What it returns and does not write in place of the state."""
    temporaries: int
    """Activations, gathered weights, gradients and whatever else lives during the step."""
    code: int
    limit: float
    """What a program can have."""

    @property
    def used(self) -> int:
        return self.state + self.results + self.temporaries + self.code

    @property
    def left(self) -> float:
        return self.limit - self.used


@dataclass(frozen=True)
class Compiled:
    """A step that was compiled; made by :func:`compile_ahead`."""

    setup: Setup
    topology: Topology
    program: Program
    memory: Memory
    seconds: float
    """That the compiler took."""

    @property
    def mesh(self) -> Mesh:
        return self.setup.mesh


class TooLargeError(VitportError):
    """The program needs more memory than a chip has."""

    def __init__(self, topology: Topology, used: float, limit: float) -> None:
        self.used, self.limit = used, limit
        super().__init__(
            f"The step does not fit {topology.chip.name}: the compiler needs {used / 1e9:.1f} GB of a chip's memory, "
            f"and {limit / 1e9:.1f} GB are there"
        )


def compile_ahead(options: TrainConfig, topology: Topology, classes: int | None = None) -> Compiled:
    """Compiles the step of a run as it is on these chips.

    Args:
        options: of the run.
        topology: the chips.
        classes: of data that are not here; ``None`` opens the run's data.

    Raises:
        TooLargeError: if the program does not fit.
        VitportError: for options that cannot be, or if the compiler fails.
    """
    if options.parallel != "jit":
        raise VitportError(f"--on compiles one program for all chips, which parallel={options.parallel} is not: "
                           "choose jit.")  # fmt: skip
    setup = set_up(options, topology.devices, classes)
    lowered = setup.lower()
    assert lowered is not None  # jit's has it
    start = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=dict(topology.options) or None)
    except Exception as error:  # JaxRuntimeError, whatever the plug-in says
        message = str(error)
        if found := _USED.search(message):
            raise TooLargeError(
                topology,
                float(found["used"]) * _UNITS[found["unit"]],
                float(found["limit"]) * _UNITS[found["limit_unit"]],
            ) from error
        reason = " ".join(message.split())[:300]
        raise VitportError(f"{topology.name}'s compiler refuses the step ({reason}): change the run.") from error
    seconds = time.perf_counter() - start
    found = compiled.memory_analysis()
    assert found is not None
    memory = Memory(
        state=found.argument_size_in_bytes,
        results=found.output_size_in_bytes - found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        code=found.generated_code_size_in_bytes,
        limit=topology.chip.memory,
    )
    if memory.left < 0:  # which the compiler for GPUs leaves to the allocator
        raise TooLargeError(topology, memory.used, memory.limit)
    return Compiled(setup, topology, read_program(compiled.as_text() or ""), memory, seconds)
