"""A whole run as one frozen dataclass: what the command line, a YAML file and a work directory hold alike."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vit_jax.training.data.options import Data
from vit_jax.training.devices.sharding import MeshShape
from vit_jax.training.recipe.recipe import Recipe
from vit_jax.training.step.forward import Remat
from vit_jax.training.step.initialization import Initialization, Positions
from vit_spec import VitportError
from vit_spec.preprocessing import ResizeMode
from vit_spec.vit.config import Activation

Parallel = Literal["jit", "pmap"]
Precision = Literal["float32", "bfloat16"]
AttentionKind = Literal["explicit", "fused", "cudnn"]


@dataclass(frozen=True)
class ModelOptions:
    """What is trained."""

    name: str | None = None
    """Registered name, as `vitport models` lists them; may be left out where weights say what they are."""
    weights: str | None = None
    """Where training starts from: any file, folder or hf:// that `vitport inspect` reads. None: at random."""
    image_size: int | tuple[int, int] | None = None
    """Pixels, a side or height and width; a position table of weights is resized."""
    patch_size: int | None = None
    """Side of a patch, for a model that starts at random."""
    in_channels: int | None = None
    """1 for grey pictures, for a model that starts at random."""
    depth: int | None = None
    """Blocks, other than those of the name, for a model that starts at random."""
    embed_dim: int | None = None
    """Width, likewise."""
    num_heads: int | None = None
    """Heads, likewise."""
    pool: Literal["token", "avg"] | None = None
    """What the head reads, for a model that starts at random: the class token, or the mean of the patches, which has
    no class token then."""
    activation: Activation | None = None
    """Of the MLPs, for a model that starts at random."""
    representation_size: int | None = None
    """Width of a tanh layer before the head, for a model that starts at random."""
    initialization: Initialization = "vit"
    """Of a model that starts at random: the usual deviations, made for widths of hundreds; those that keep the variance
    of what a layer is given, for narrow models; or those of DeiT's code or of big_vision's."""
    positions: Positions = "learned"
    """First values of the position table of a model that starts at random: drawn, or sines and cosines of row and
    column; recipe.optimizer.frozen keeps them."""
    resize: ResizeMode | None = None
    """How a picture is brought to the model's size for evaluation, if not as the name or the weights have it: scaled by
    its shorter side and cut, or both sides straight."""
    crop_fraction: float | None = None
    """Share of the shorter side that the cut keeps; 1 for small pictures, which are all subject."""
    drop_rate: float = 0.0
    """Dropout of tokens and of what attention and MLP give."""
    attn_drop_rate: float = 0.0
    """Dropout of attention weights."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block; it rises with depth from 0."""
    layer_scale: float | None = None
    """First value of LayerScale, for a model that starts at random."""


@dataclass(frozen=True)
class Teacher:
    """What a distilled model learns from."""

    weights: str | None = None
    """Any file, folder or hf:// that `vitport inspect` reads."""
    name: str | None = None
    """Registered name, for facts that the weights do not tell."""


@dataclass(frozen=True)
class Keeping:
    """Checkpoints and evaluations."""

    every: int = 1000
    """Steps between checkpoints; there is always one at the end."""
    last: int = 2
    """Newest checkpoints that are kept."""
    best: int = 1
    """Checkpoints of the best evaluations that are kept besides."""
    evaluate: int | None = None
    """Steps between evaluations; None: before each checkpoint."""

    def __post_init__(self) -> None:
        if min(self.every, self.last) < 1 or self.best < 0 or (self.evaluate is not None and self.evaluate < 1):
            raise VitportError(
                f"keep.every={self.every}, last={self.last}, best={self.best}, evaluate={self.evaluate} count steps "
                "and checkpoints: give 1 or more, and 0 or more for best."
            )


@dataclass(frozen=True)
class Processes:
    """Several processes of one run. On TPU pods, SLURM, Open MPI and Kubernetes all three are found out."""

    coordinator: str | None = None
    """HOST:PORT of the first process; None: one process, or what a cluster shows."""
    count: int | None = None
    """Number of processes of the run."""
    index: int | None = None
    """Number of this process, from 0."""
    wait: int = 300
    """Seconds in which all of them must have met."""

    def __post_init__(self) -> None:
        given = [value is not None for value in (self.coordinator, self.count, self.index)]
        if any(given) and not all(given):
            raise VitportError(
                f"processes.coordinator={self.coordinator}, count={self.count}, index={self.index} belong together: "
                "give all three, or none."
            )
        if self.wait < 1:
            raise VitportError(f"processes.wait={self.wait} counts seconds: give 1 or more.")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides how a run goes."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: Data = field(default_factory=Data)
    recipe: Recipe = field(default_factory=Recipe)
    teacher: Teacher = field(default_factory=Teacher)
    keep: Keeping = field(default_factory=Keeping)
    batch: int = 128
    """Pictures of a step, over all devices and processes."""
    steps: int | None = None
    """Length of the run in steps."""
    epochs: float | None = None
    """The same in passes over the training pictures; one of the two is given."""
    precision: Precision = "float32"
    """Of the computation; parameters, moments and loss stay in float32."""
    remat: Remat = "auto"
    """What of each block is computed again in the backward pass: what takes hardly any time (on a single CPU device all
    but the products of linear layers, unless dropout acts; else nothing), nothing, all, all but products, all but the
    products of linear layers."""
    attention: AttentionKind = "fused"
    """``explicit`` computes the attention weights as written in the model; ``fused`` normalizes after the values and
    stores no weights; ``cudnn`` runs on NVIDIA GPUs in bfloat16. All agree up to rounding. Blocks with attention
    dropout are always explicit."""
    scan: bool = False
    """Compile one block and run it for all: shorter compilation, the same results and checkpoints; all gradients are
    held at once."""
    parallel: Parallel = "jit"
    """One program over a mesh of all devices; or copies of everything on the devices of one process."""
    mesh: MeshShape = field(default_factory=MeshShape)
    seed: int = 0
    """Of initial values, order of pictures, augmentation and dropout."""
    log_every: int = 10
    """Steps between lines of the log."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise VitportError(f"steps={self.steps} and epochs={self.epochs} both say how long the run is: give one.")
        if (self.steps is not None and self.steps < 1) or (self.epochs is not None and not 0 < self.epochs < math.inf):
            raise VitportError(f"steps={self.steps}, epochs={self.epochs} make no run: give more than 0.")
        if min(self.batch, self.log_every) < 1:
            raise VitportError(f"batch={self.batch} and log_every={self.log_every} are counts: give 1 or more.")
        if not 0 <= self.seed < 2**32:
            raise VitportError(f"seed={self.seed} is no seed: give a whole number from 0 to 2^32 - 1.")
        if self.recipe.loss.distillation != "none" and self.teacher.weights is None:
            raise VitportError(
                f"recipe.loss.distillation={self.recipe.loss.distillation!r} needs a teacher: name its weights as "
                "teacher.weights."
            )
        if self.recipe.loss.distillation == "none" and self.teacher.weights is not None:
            raise VitportError(
                "teacher.weights are given, and nothing is distilled: choose recipe.loss.distillation, hard or soft."
            )

    def total_steps(self, pictures: int) -> int:
        """Steps of the run over a set of so many pictures, whole epochs rounded up.

        Raises:
            VitportError: if the run has no length.
        """
        if self.steps is None and self.epochs is None:
            raise VitportError("A run has a length: give steps or epochs.")
        return self.steps if self.steps is not None else math.ceil((self.epochs or 0) * pictures / self.batch)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every field written out."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def config_from_dict(values: Mapping[str, Any], name: str) -> TrainConfig:
    """The inverse of :meth:`TrainConfig.to_dict`; what is left out takes its default.

    Args:
        name: of the file, for messages.

    Raises:
        VitportError: for unknown fields, and values of the wrong kind.
    """
    from pydantic import TypeAdapter, ValidationError

    _check_known(values, TrainConfig().to_dict(), name, "")
    try:
        return TypeAdapter(TrainConfig).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise VitportError(f"{name} gives {at} the value {first['input']!r}: {first['msg']}.") from error


def read_config(path: str | Path) -> TrainConfig:
    """A configuration from a YAML or JSON file, such as the ``config.json`` of a work directory.

    Raises:
        VitportError: if there is none that can be read.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text())  # JSON is YAML too
    except OSError as error:
        raise VitportError(f"{path} cannot be read ({error.strerror}): give a YAML or JSON file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VitportError(f"{path} is no YAML or JSON ({' '.join(str(error).split())}): correct it.") from error
    if not isinstance(values, Mapping):
        raise VitportError(f"{path} holds no configuration: expected names and values such as `batch: 128`.")
    return config_from_dict(values, str(path))


def _check_known(values: Mapping[str, Any], known: Mapping[str, Any], name: str, at: str) -> None:
    for key, value in values.items():
        if key not in known:
            raise VitportError(f"{name} has {at}{key}, which is no option: the ones there are {', '.join(known)}.")
        if isinstance(known[key], Mapping):
            if not isinstance(value, Mapping):
                raise VitportError(
                    f"{name} gives {at}{key} the value {value!r}: it has parts, {', '.join(known[key])}."
                )
            _check_known(value, known[key], name, f"{at}{key}.")
