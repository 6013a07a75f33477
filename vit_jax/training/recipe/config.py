"""A whole run as one frozen dataclass, the same on the command line, in a YAML file and in a work directory."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vit_jax.training.recipe.data import Data
from vit_jax.training.recipe.execution import AttentionKind, MeshShape, Parallel, Precision, Remat, Scan
from vit_jax.training.recipe.recipe import Recipe
from vit_spec import VitportError
from vit_spec.activation import Activation
from vit_spec.address import check_all_local
from vit_spec.preprocessing import ResizeMode
from vit_spec.vit.config import Pooling

_MOST_STEPS = 2**31 - 1
"""The optimizer counts them in an int32."""
CONFIG = "config.json"
"""Where a work directory holds its run's configuration."""
Initialization = Literal["vit", "width", "deit", "big_vision"]
Positions = Literal["learned", "sincos2d"]
Head = Literal["auto", "keep", "new"]
TrackerName = Literal["wandb", "mlflow"]
Often = int | Literal["epoch"]


@dataclass(frozen=True)
class ModelOptions:
    """The model to train. Most options apply only to a model that starts from random values."""

    name: str | None = None
    """A registered name, as `vitport models` lists them; optional where the weights describe themselves."""
    weights: str | None = None
    """Weights to start from: any file, folder or hf:// that `vitport inspect` reads. None: random values."""
    image_size: int | tuple[int, int] | None = None
    """Pixels, a side or height and width; a position table of weights is resized. None: the weights' own, or 224
    where these are more than 400."""
    patch_size: int | None = None
    """Side of a patch in pixels; random start only."""
    in_channels: int | None = None
    """1 for grey images; random start only."""
    depth: int | None = None
    """Number of blocks; random start only."""
    depths: tuple[int, ...] | None = None
    """Number of blocks of each stage of a Swin Transformer; random start only."""
    embed_dim: int | None = None
    """Width of the tokens, in the first stage of a Swin Transformer; random start only."""
    num_heads: int | tuple[int, ...] | None = None
    """Attention heads, for each stage of a Swin Transformer; random start only."""
    window_sizes: int | None = None
    """Side of the windows of a Swin Transformer, in tokens; random start only."""
    pool: Pooling | None = None
    """What the head reads: the class token; the mean of the patches, or a learned query on them, which from a random
    start means no class token; or token and mean. None: with weights, what the classifier of their family reads."""
    head: Head = "auto"
    """The classifier of the weights: keep it, or start a new one at zero; auto keeps it where the data have as many
    classes, and the same names where both have names."""
    activation: Activation | None = None
    """Activation of the MLPs; random start only."""
    representation_size: int | None = None
    """Width of a tanh layer before the head; random start only."""
    initialization: Initialization = "vit"
    """Random values: the model's own standard deviations, made for widths of hundreds; by width, which keeps the
    variance of each layer's inputs and suits narrow models; or those of DeiT's code or of big_vision's."""
    positions: Positions = "learned"
    """Initial position table: random, or sines and cosines of row and column, which recipe.optimizer.frozen can keep
    fixed; random start only."""
    resize: ResizeMode | None = None
    """How evaluation resizes an image, where not as the name or the weights say: shorter side and crop, or both sides
    separately."""
    crop_fraction: float | None = None
    """Share of the shorter side that evaluation crops; 1 keeps all of it, for small images."""
    drop_rate: float = 0.0
    """Dropout of tokens and of the outputs of attention and MLP."""
    attn_drop_rate: float = 0.0
    """Dropout of attention weights."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; the rate rises linearly with depth, from 0."""
    layer_scale: float | None = None
    """Initial value of LayerScale; random start only."""


@dataclass(frozen=True)
class Teacher:
    """The model that a distilled model learns from."""

    weights: str | None = None
    """Any file, folder or hf:// that `vitport inspect` reads."""
    name: str | None = None
    """A registered name, where the weights do not describe themselves."""


@dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints and evaluations."""

    every: Often = 1000
    """Steps between checkpoints, or ``epoch`` for one after each; the last step always writes one."""
    last: int = 2
    """Number of newest checkpoints to keep."""
    best: int = 1
    """Number of checkpoints with the best evaluations to keep besides."""
    evaluate: Often | None = None
    """Steps between evaluations, or ``epoch``; None: before each checkpoint."""
    patience: int | None = None
    """End the run after so many evaluations without a better accuracy, or mean average precision; None: never."""

    def __post_init__(self) -> None:
        for name, least in {"every": 1, "last": 1, "best": 0, "evaluate": 1, "patience": 1}.items():
            value = getattr(self, name)
            if value is not None and value != "epoch" and value < least:
                raise VitportError(f"keep.{name} must be {least} or more; got {value}.")


@dataclass(frozen=True)
class Processes:
    """Several processes of one run. TPU pods, SLURM, Open MPI and Kubernetes are detected; elsewhere give all three."""

    coordinator: str | None = None
    """HOST:PORT of the first process; None: a single process, or what the launcher says."""
    count: int | None = None
    """Number of processes in the run."""
    index: int | None = None
    """Index of this process, from 0."""
    wait: int = 300
    """Seconds to wait for all processes to connect."""

    def __post_init__(self) -> None:
        given = [value is not None for value in (self.coordinator, self.count, self.index)]
        if any(given) and not all(given):
            raise VitportError(
                f"processes.coordinator={self.coordinator}, count={self.count}, index={self.index} belong together: "
                "give all three, or none."
            )
        if self.wait < 1:
            raise VitportError(f"processes.wait must be 1 second or more; got {self.wait}.")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides how a run goes."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: Data = field(default_factory=Data)
    recipe: Recipe = field(default_factory=Recipe)
    teacher: Teacher = field(default_factory=Teacher)
    keep: CheckpointOptions = field(default_factory=CheckpointOptions)
    batch: int = 128
    """Images per step, over all devices and processes."""
    steps: int | None = None
    """Length of the run in steps."""
    epochs: float | None = None
    """Length of the run in passes over the training images; give steps or epochs."""
    precision: Precision = "float32"
    """Precision of the computation; parameters, moments and loss stay in float32."""
    gradient_sum: Precision = "bfloat16"
    """Precision in which devices sum the gradients of a bfloat16 computation: float32 loses nothing as devices become
    many, and sends twice the bytes. In float32, and with pmap, sums are float32 always."""
    remat: Remat = "auto"
    """What the backward pass recomputes of each block: with auto, what costs hardly any time (on a single CPU device
    dots_no_batch, on TPUs and GPUs with scan dots, unless there is dropout; elsewhere nothing); nothing; everything;
    everything but matrix products; everything but the products of linear layers."""
    attention: AttentionKind = "auto"
    """``explicit`` computes the attention weights as written in the model; ``fused`` normalizes after the values;
    ``cudnn`` runs on NVIDIA GPUs in bfloat16 and ``flash`` on TPUs, and store no weights; ``auto`` chooses by device,
    precision and model. All agree up to rounding. Blocks with attention dropout are always explicit."""
    scan: Scan = "auto"
    """Compile one block and scan over all: faster to compile, the same results and checkpoints; all gradients are
    held at once. auto: on TPUs, whose compiler takes ten times as long for twelve blocks one after another. Short:
    --scan and --no-scan."""
    parallel: Parallel = "jit"
    """One program over a mesh of all devices; or pmap, which copies everything to each device of one process."""
    mesh: MeshShape = field(default_factory=MeshShape)
    seed: int = 0
    """Seed of initial values, image order, augmentation and dropout."""
    log_every: int = 10
    """Steps between lines of the log."""
    log: tuple[TrackerName, ...] = ()
    """Experiment trackers that get every line of the log, besides metrics.jsonl and TensorBoard's files: Weights &
    Biases, MLflow; by their own environment variables."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise VitportError(f"steps={self.steps} and epochs={self.epochs} both set the run's length: give one.")
        if (self.steps is not None and self.steps < 1) or (self.epochs is not None and not 0 < self.epochs < math.inf):
            raise VitportError(f"steps and epochs must be above 0; got steps={self.steps}, epochs={self.epochs}.")
        for name in ("batch", "log_every"):
            if getattr(self, name) < 1:
                raise VitportError(f"{name} must be 1 or more; got {getattr(self, name)}.")
        if not 0 <= self.seed < 2**32:
            raise VitportError(f"seed must be a whole number from 0 to 2^32 - 1; got {self.seed}.")
        if self.recipe.loss.distillation != "none" and self.teacher.weights is None:
            raise VitportError(
                f"recipe.loss.distillation={self.recipe.loss.distillation!r} needs a teacher: give teacher.weights."
            )
        if self.recipe.loss.distillation == "none" and self.teacher.weights is not None:
            raise VitportError(
                "teacher.weights needs a distillation loss: set recipe.loss.distillation to hard or soft, or leave the "
                "teacher out."
            )

    def total_steps(self, images: int) -> int:
        """Steps of the run on a training set of so many images; epochs are rounded up to whole steps.

        Raises:
            VitportError: if neither steps nor epochs are given, or they are more than are counted.
        """
        if self.steps is None and self.epochs is None:
            raise VitportError("The run has no length: give steps or epochs.")
        steps = self.steps if self.steps is not None else (self.epochs or 0) * images / self.batch
        if steps > _MOST_STEPS:
            raise VitportError(
                f"steps={self.steps} or epochs={self.epochs} is more than {_MOST_STEPS} steps, which is as far as they "
                "are counted: give fewer."
            )
        return math.ceil(steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every field written out."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def config_from_dict(values: Mapping[str, Any], name: str) -> TrainConfig:
    """The inverse of :meth:`TrainConfig.to_dict`; missing fields take their defaults.

    Args:
        name: of the file, for messages.

    Raises:
        VitportError: for unknown fields, and values of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    if values.get("attention") == "written":  # the name of explicit in work directories of earlier versions
        values = {**values, "attention": "explicit"}
    _check_known(values, TrainConfig().to_dict(), name, "")
    check_all_local(
        values,
        ("data.path", "data.validation", "data.labels", "data.validation_labels", "model.weights", "teacher.weights"),
    )
    try:
        return TypeAdapter(TrainConfig).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise VitportError(f"{name} gives {at} the value {first['input']!r}: {first['msg']}.") from error


def read_config(path: str | Path) -> TrainConfig:
    """A configuration from a YAML or JSON file, such as the ``config.json`` of a work directory.

    Raises:
        VitportError: if the file cannot be read, or is not a valid configuration.
    """
    from conversion.containers.yaml_file import read_yaml

    return config_from_dict(read_yaml(path), str(path))


def _check_known(values: Mapping[str, Any], known: Mapping[str, Any], name: str, at: str) -> None:
    for key, value in values.items():
        if key not in known:
            raise VitportError(f"{name} has the unknown option {at}{key}: choose one of {', '.join(known)}.")
        if isinstance(known[key], Mapping):
            if not isinstance(value, Mapping):
                raise VitportError(
                    f"{name} gives {at}{key} the value {value!r}: expected a mapping with {', '.join(known[key])}."
                )
            _check_known(value, known[key], name, f"{at}{key}.")
