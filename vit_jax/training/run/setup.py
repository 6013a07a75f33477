"""From a configuration to everything that a run needs, without compiling anything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from vit_jax.families import make_model
from vit_jax.inference.inference import Inference
from vit_jax.inference.microbatch import microbatched
from vit_jax.layers.attention import ATTENTION, set_attention
from vit_jax.layers.xla.platform import platform_of
from vit_jax.model import VisionModel
from vit_jax.pure import Params
from vit_jax.training.data import Absent, Source, check_channels, open_sources
from vit_jax.training.data.sources.holdout import are_several, labels_of
from vit_jax.training.devices.engine import Engine, jit_engine, own_rows, pmap_engine
from vit_jax.training.devices.sharding import check_divides, mesh_by_network
from vit_jax.training.recipe.config import TrainConfig
from vit_jax.training.recipe.execution import AttentionKernel, MeshShape, Precision, Remat
from vit_jax.training.recipe.finetuning import usual_peak
from vit_jax.training.run.attention import choose_attention
from vit_jax.training.run.model import RunModel, model_of, parameters_of
from vit_jax.training.step.distillation import load_teacher
from vit_jax.training.step.forward import Forward
from vit_jax.training.step.optimizer import make_optimizer, make_schedule
from vit_jax.training.step.update import TrainState, init_state
from vit_spec import Config, Preprocessing, VitportError, block_sizes

_SCANNED = "blocks are one scan, which TPUs' compiler takes a tenth of the time for; --no-scan may run faster"
_ANY_LENGTH = 1_000_000
"""Steps, where only one is asked about: longer than any warm-up."""


@dataclass(frozen=True)
class Setup:
    """A run that is ready to start; made by :func:`set_up`."""

    options: TrainConfig
    train: Source
    validation: Source | None
    model: Config
    preprocessing: Preprocessing
    attention: AttentionKernel
    remat: Remat
    scan: bool
    """Chosen, all three, if the options leave them to the run."""
    steps: int
    mesh: Mesh
    """All devices; with pmap, the mesh of evaluation."""
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    engine: Engine
    make_state: Callable[[], TrainState]
    """Makes the state before the first step; to be compiled with the engine's shardings."""
    choices: tuple[str, ...] = ()
    """What was chosen for the user, in sentences."""
    notes: tuple[str, ...] = ()
    """What was read and changed of the weights to start from, in sentences."""

    @cached_property
    def shapes(self) -> TrainState:
        """The state's shapes, with the shardings in which it is created and restored."""
        shapes = jax.eval_shape(self.make_state)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.engine.layout(shapes),
        )

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""
        return self._in_steps(self.options.keep.every)

    @property
    def evaluate_every(self) -> int:
        """Steps between evaluations."""
        keep = self.options.keep
        return self._in_steps(keep.every if keep.evaluate is None else keep.evaluate)

    def _in_steps(self, length: int | Literal["epoch"]) -> int:
        return math.ceil(len(self.train) / self.options.batch) if length == "epoch" else length

    @property
    def rows(self) -> Any:
        """Rows of each batch that this process reads."""
        return own_rows(self.mesh, self.options.batch)

    @property
    def program(self) -> dict[str, Any]:
        """How the step is computed, by the names of the options, with what was chosen for ``auto``."""
        o = self.options
        return {
            "batch": o.batch, "precision": o.precision, "remat": self.remat, "attention": self.attention,
            "accumulation": o.recipe.accumulation, "scan": self.scan,
            "gradient_sum": o.gradient_sum if o.precision == "bfloat16" and o.parallel == "jit" else "float32",
            "parallel": o.parallel,
        }  # fmt: skip

    def lower(self) -> jax.stages.Lowered:
        """The step, lowered for a batch."""
        size, rows = self.preprocessing, (self.options.batch,)
        batch = {
            "image": ((*rows, *size.size, len(size.mean)), np.uint8),
            "label": ((*rows, len(self.train.classes)), np.uint8) if are_several(self.train) else (rows, np.int32),
            "index": (rows, np.uint32),
            "weight": (rows, np.float32),
        }
        return self.engine.lower(self.shapes, {name: jax.ShapeDtypeStruct(*shape) for name, shape in batch.items()})

    def first_state(self) -> TrainState:
        """The state before the first step, on the devices."""
        return self.engine.place_state(jax.jit(self.make_state, out_shardings=self.engine.layout(self.shapes))())

    def inference(self) -> Callable[[Params, jax.Array], jax.Array]:
        """The model in evaluation mode: parameters and images (B, H, W, C) -> logits (B, K)."""
        inference = Inference(abstract_model(self.model, self.options.precision, self.attention))
        return microbatched(inference) if self.mesh.size == 1 else inference

    def record(self) -> dict[str, Any]:
        """What the weights mean, as JSON values; with it `vitport convert` reads a checkpoint."""
        from conversion import Checkpoint

        checkpoint = Checkpoint.of(self.model, {}, self.preprocessing, self.train.classes)
        checkpoint = dataclasses.replace(checkpoint, several_labels=are_several(self.train))
        recipe, data = self.options.recipe, self.options.data
        return checkpoint.record(sha256="") | {
            "pictures": len(self.train),  # the name in checkpoints since the first release
            "recipe": {"optimizer": dataclasses.asdict(recipe.optimizer), "ema": recipe.ema},
            "order": {"batch": self.options.batch, "seed": self.options.seed, "data.repeats": data.repeats,
                      "data.balanced": data.balanced},
        }  # fmt: skip


def set_up(
    options: TrainConfig,
    devices: Sequence[Any] | None = None,
    classes: int | None = None,
    chosen: RunModel | None = None,
) -> Setup:
    """Opens the data, and prepares model, mesh, schedule and engine; compiles nothing and makes no large array.

    Args:
        devices: that a step of the run is compiled for, which need not be here; a run without a length has any then.
            ``None``: all of this run's processes.
        classes: of data that are not here, which are not opened then.
        chosen: a model that no options describe; ``None``: that of ``options.model``.

    Raises:
        VitportError: for every mistake that can be found before compiling.
    """
    train, validation = open_sources(options.data) if classes is None else (Absent(classes), None)
    if options.keep.patience is not None and validation is None and classes is None:
        raise VitportError(
            f"keep.patience={options.keep.patience} compares evaluations, and {train.name} has no validation images: "
            "give data.validation or data.holdout, or leave it out."
        )
    chosen = model_of(options.model, train.classes) if chosen is None else chosen
    model, preprocessing = chosen.config, chosen.preprocessing
    choices = chosen.notes
    if are_several(train):
        options, told = _of_several_labels(options, labels_of(train))
        choices = (*choices, told)
    options = _with_class_weights(_with_peak(options, model), train, classes is None)
    check_channels(preprocessing)
    mesh = mesh_by_network(
        options.mesh if options.parallel == "jit" else MeshShape(), jax.devices() if devices is None else devices
    )
    if options.parallel == "pmap" and options.mesh != MeshShape():
        raise VitportError("parallel=pmap copies everything to every device, so it takes no mesh: leave mesh out.")
    check_divides(model, options.batch, options.recipe.accumulation, mesh)
    attention = choose_attention(options.attention, model, platform_of(mesh), options.precision)
    endless = devices is not None and options.steps is None and options.epochs is None
    steps = _ANY_LENGTH if endless else options.total_steps(len(train))
    abstract = abstract_model(model, options.precision, attention)
    schedule = make_schedule(options.recipe.schedule, steps)
    optimizer = make_optimizer(options.recipe.optimizer, schedule, model)
    scan = platform_of(mesh) == "tpu" if options.scan == "auto" else options.scan
    if scan and options.scan == "auto":
        choices = (*choices, _SCANNED)
    forward = Forward(abstract, remat=options.remat, scan=scan, gradient_sum=options.gradient_sum)
    teacher = load_teacher(options.teacher, model, preprocessing)
    key = jax.random.key(options.seed)
    recipe = options.recipe
    engine = (
        jit_engine(forward, optimizer, recipe, preprocessing, mesh, key, teacher)
        if options.parallel == "jit"
        else pmap_engine(forward, optimizer, recipe, preprocessing, key, teacher, devices)
    )
    params = parameters_of(chosen, options)

    def make_state() -> TrainState:
        return init_state(params(), optimizer, recipe)

    notes = () if chosen.weights is None else chosen.weights.provenance.notes
    remat = (forward.on_mesh(mesh) if options.parallel == "jit" else forward).chosen_remat
    return Setup(options, train, validation, model, preprocessing, attention, remat, scan, steps, mesh, schedule,
                 optimizer, engine, make_state, choices, notes)  # fmt: skip


def _with_peak(options: TrainConfig, model: Config) -> TrainConfig:
    recipe = options.recipe
    if recipe.schedule.peak is not None:
        return options
    schedule = dataclasses.replace(recipe.schedule, peak=usual_peak(options.batch, block_sizes(model)[-1].width))
    return dataclasses.replace(options, recipe=dataclasses.replace(recipe, schedule=schedule))


def _of_several_labels(options: TrainConfig, labels: np.ndarray) -> tuple[TrainConfig, str]:
    """The options with a loss for several labels an image, and what that is, in words."""
    loss, counts = options.recipe.loss, labels.sum(axis=1)
    refused = {
        "recipe.loss.distillation": (loss.distillation != "none", "the classes of a teacher exclude each other"),
        "recipe.loss.class_weights=balanced": (loss.class_weights == "balanced", "numbers can be given"),
        "data.balanced": (options.data.balanced, "an image is of several classes at once"),
    }
    for name, (given, why) in refused.items():
        if given:
            raise VitportError(f"{name} is for one label an image, and these have several: leave it out; {why}.")
    told = (
        f"images have {counts.min()} to {counts.max()} of {labels.shape[1]} labels: the loss is sigmoid, and "
        "evaluation gives mean average precision"
    )
    recipe = dataclasses.replace(options.recipe, loss=dataclasses.replace(loss, name="sigmoid"))
    return dataclasses.replace(options, recipe=recipe), told


def _with_class_weights(options: TrainConfig, train: Source, is_here: bool) -> TrainConfig:
    weights, classes = options.recipe.loss.class_weights, len(train.classes)
    if weights == "balanced":
        counts = np.bincount(labels_of(train), minlength=classes) if is_here else np.ones(classes)
        weights = tuple((counts.sum() / (classes * np.maximum(counts, 1))).tolist())
    if weights == "none":
        return options
    if len(weights) != classes:
        raise VitportError(f"loss.class_weights has {len(weights)} numbers, and the data have {classes} classes: give "
                           "one for each, in their order.")  # fmt: skip
    loss = dataclasses.replace(options.recipe.loss, class_weights=weights)
    return dataclasses.replace(options, recipe=dataclasses.replace(options.recipe, loss=loss))


def abstract_model(model: Config, precision: Precision, attention: AttentionKernel) -> VisionModel:
    """The model without arrays: computes in the run's precision, with float32 parameters."""
    dtype = jnp.dtype(precision)
    abstract = nnx.eval_shape(lambda: make_model(model, rngs=nnx.Rngs(0), dtype=dtype))
    set_attention(abstract, ATTENTION[attention])
    return abstract
