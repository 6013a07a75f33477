"""Compiles a run's step, or a model's inference, for chips that are not here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax.inference.inference import Inference
from vit_jax.params import get_params
from vit_jax.preprocessing import normalise
from vit_jax.pure import Params
from vit_jax.training.ahead.duration import words
from vit_jax.training.ahead.program import Program, read_program
from vit_jax.training.ahead.topology import Topology
from vit_jax.training.devices.sharding import BATCH, mesh_by_network
from vit_jax.training.recipe.config import TrainConfig
from vit_jax.training.recipe.execution import MeshShape, Precision
from vit_jax.training.run.model import RunModel
from vit_jax.training.run.setup import abstract_model, set_up
from vit_jax.training.step.cost import step_flops
from vit_spec import Config, VitportError, forward_flops

if TYPE_CHECKING:
    from conversion import Checkpoint

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
    """A program that was compiled; made by :func:`compile_ahead` and :func:`compile_inference_ahead`."""

    topology: Topology
    mesh: Mesh
    model: Config
    about: Mapping[str, Any]
    """What was compiled, by the names of the command's options, with what was chosen for ``auto``; with ``batch``."""
    model_flops: float
    """Operations of the model in one run of the program: recomputation does not count."""
    program: Program
    memory: Memory
    seconds: float
    """That the compiler took."""


class TooLargeError(VitportError):
    """The program needs more memory than a chip has."""

    def __init__(self, topology: Topology, used: float, limit: float) -> None:
        self.used, self.limit = used, limit
        super().__init__(
            f"The program does not fit {topology.chip.name}: the compiler needs {used / 1e9:.1f} GB of a chip's "
            f"memory, and {limit / 1e9:.1f} GB are there"
        )


def compile_ahead(
    options: TrainConfig,
    topology: Topology,
    classes: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
    chosen: RunModel | None = None,
) -> Compiled:
    """Compiles the step of a run as it is on these chips.

    Args:
        options: of the run.
        topology: the chips.
        classes: of data that are not here; ``None`` opens the run's data.
        tell: called with what will be compiled, and about how long it takes, once the options are known to be possible.
        chosen: a model that no options describe; ``None``: that of ``options.model``.

    Raises:
        TooLargeError: if the program does not fit.
        VitportError: for options that cannot be, or if the compiler fails.
    """
    if options.parallel == "pmap" and topology.hosts > 1:
        raise VitportError(
            f"parallel=pmap runs on one host, and {topology.name} has {topology.hosts}: choose jit, or fewer chips."
        )
    setup = set_up(options, topology.devices, classes, chosen)
    tell(f"compiling a training step for {topology.words}: {words(setup.model, topology, scan=setup.scan)}")
    lowered = setup.lower()
    operations = step_flops(setup.model, options.batch, options.recipe.optimizer.frozen)
    return _compiled(lowered, topology, setup.mesh, setup.model, setup.program, operations)


def compile_inference_ahead(
    checkpoint: Checkpoint,
    topology: Topology,
    batch: int,
    precision: Precision = "float32",
    tell: Callable[[str], None] = lambda text: None,
) -> Compiled:
    """Compiles a model in evaluation mode, from uint8 images to logits, with fused attention, as ``vitport evaluate``
    does; all chips share the batch, and each holds all parameters.

    Args:
        checkpoint: its configuration and preprocessing are read, and no parameter.
        batch: images, over all chips.
        precision: of the computation; parameters are float32.
        tell: as for :func:`compile_ahead`.

    Raises:
        TooLargeError: if the program does not fit.
        VitportError: if the chips do not divide the batch, or the compiler fails.
    """
    mesh = mesh_by_network(MeshShape(), topology.devices)
    if batch < 1 or batch % mesh.size:
        raise VitportError(f"batch={batch} is not shared evenly by {mesh.size} chips: give a multiple of them.")
    model, preprocessing = checkpoint.config, checkpoint.preprocessing
    abstract = abstract_model(model, precision, "fused")
    inference = Inference(abstract)

    def forward(params: Params, images: jax.Array) -> jax.Array:
        return inference(params, normalise(images, preprocessing))

    copied, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, BATCH)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), dict(get_params(abstract)))
    images = jax.ShapeDtypeStruct((batch, *model.image_size, model.in_channels), np.uint8)
    lowered = jax.jit(forward, in_shardings=(copied, rows), out_shardings=rows).lower(params, images)
    about = {"batch": batch, "precision": precision, "attention": "fused"}
    tell(f"compiling inference for {topology.words}")
    return _compiled(lowered, topology, mesh, model, about, batch * forward_flops(model))


def _compiled(
    lowered: jax.stages.Lowered,
    topology: Topology,
    mesh: Mesh,
    model: Config,
    about: Mapping[str, Any],
    model_flops: float,
) -> Compiled:
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
        raise VitportError(f"{topology.name}'s compiler refuses the program ({reason}): change its options.") from error
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
    return Compiled(topology, mesh, model, about, model_flops, read_program(compiled.as_text() or ""), memory, seconds)
