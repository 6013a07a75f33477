"""From a configuration to everything that a run needs, without compiling anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

import vit_jax
from vit_jax.families import make_model
from vit_jax.inference.inference import Inference
from vit_jax.inference.microbatch import microbatched
from vit_jax.layers.attention import ATTENTION, set_attention
from vit_jax.layers.xla.platform import platform_of
from vit_jax.model import VisionModel
from vit_jax.params import get_params
from vit_jax.pure import Params
from vit_jax.training.data import Absent, Source, check_channels, open_sources
from vit_jax.training.devices.engine import Engine, jit_engine, own_rows, pmap_engine
from vit_jax.training.devices.sharding import check_divides, mesh_by_network
from vit_jax.training.recipe.config import ModelOptions, TrainConfig
from vit_jax.training.recipe.execution import AttentionKernel, MeshShape, Precision
from vit_jax.training.run.attention import choose_attention
from vit_jax.training.run.init_schemes import check_scheme, initialized
from vit_jax.training.step.distillation import load_teacher
from vit_jax.training.step.forward import Forward
from vit_jax.training.step.optimizer import make_optimizer, make_schedule
from vit_jax.training.step.update import TrainState, init_state
from vit_spec import Config, Preprocessing, VitportError, block_sizes, family_of, get_model, segments

if TYPE_CHECKING:
    from conversion import Checkpoint

_CHANGES = (
    "patch_size", "in_channels", "depth", "depths", "embed_dim", "num_heads", "window_sizes", "layer_scale",
    "activation", "representation_size",
)  # fmt: skip
_NEW_ONLY = (*_CHANGES, "pool", "initialization", "positions")


@dataclass(frozen=True)
class Setup:
    """A run that is ready to start; made by :func:`set_up`."""

    options: TrainConfig
    train: Source
    validation: Source | None
    model: Config
    preprocessing: Preprocessing
    attention: AttentionKernel
    """Chosen, if the options leave it to the run."""
    steps: int
    mesh: Mesh
    """All devices; with pmap, the mesh of evaluation."""
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    engine: Engine
    make_state: Callable[[], TrainState]
    """Makes the state before the first step; to be compiled with the engine's shardings."""
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
    def rows(self) -> Any:
        """Rows of each batch that this process reads."""
        return own_rows(self.mesh, self.options.batch)

    def lower(self) -> jax.stages.Lowered | None:
        """The step, lowered for a batch; ``None`` where it is not one program."""
        if self.engine.lower is None:
            return None
        size, rows = self.preprocessing, (self.options.batch,)
        batch = {
            "image": ((*rows, *size.size, len(size.mean)), np.uint8),
            "label": (rows, np.int32),
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
        recipe, data = self.options.recipe, self.options.data
        return checkpoint.record(sha256="") | {
            "pictures": len(self.train),  # the name in checkpoints since the first release
            "recipe": {"optimizer": dataclasses.asdict(recipe.optimizer), "ema": recipe.ema},
            "order": {"batch": self.options.batch, "seed": self.options.seed, "data.repeats": data.repeats},
        }


def set_up(options: TrainConfig, devices: Sequence[Any] | None = None, classes: int | None = None) -> Setup:
    """Opens the data, and prepares model, mesh, schedule and engine; compiles nothing and makes no large array.

    Args:
        devices: that the run is for, which need not be here; ``None``: all of this run's processes.
        classes: of data that are not here, which are not opened then.

    Raises:
        VitportError: for every mistake that can be found before compiling.
    """
    train, validation = open_sources(options.data) if classes is None else (Absent(classes), None)
    model, preprocessing, weights = _model(options.model, len(train.classes))
    check_channels(preprocessing)
    mesh = mesh_by_network(
        options.mesh if options.parallel == "jit" else MeshShape(), jax.devices() if devices is None else devices
    )
    if options.parallel == "pmap" and options.mesh != MeshShape():
        raise VitportError("parallel=pmap copies everything to every device, so it takes no mesh: leave mesh out.")
    check_divides(model, options.batch, options.recipe.accumulation, mesh)
    attention = choose_attention(options.attention, model, platform_of(mesh), options.precision)
    steps = options.total_steps(len(train))
    abstract = abstract_model(model, options.precision, attention)
    schedule = make_schedule(options.recipe.schedule, steps)
    optimizer = make_optimizer(options.recipe.optimizer, schedule, model)
    forward = Forward(abstract, remat=options.remat, scan=options.scan)
    teacher = load_teacher(options.teacher, model, preprocessing)
    key = jax.random.key(options.seed)
    recipe = options.recipe
    engine = (
        jit_engine(forward, optimizer, recipe, preprocessing, mesh, key, teacher)
        if options.parallel == "jit"
        else pmap_engine(forward, optimizer, recipe, preprocessing, key, teacher)
    )
    read = None if weights is None else _read_params(weights, model, options)

    def make_state() -> TrainState:
        params = _fresh_params(model, options) if read is None else read()
        return init_state(params, optimizer, recipe)

    return Setup(options, train, validation, model, preprocessing, attention, steps, mesh, schedule, optimizer, engine,
                 make_state, () if weights is None else weights.provenance.notes)  # fmt: skip


def abstract_model(model: Config, precision: Precision, attention: AttentionKernel) -> VisionModel:
    """The model without arrays: computes in the run's precision, with float32 parameters."""
    dtype = jnp.dtype(precision)
    abstract = nnx.eval_shape(lambda: make_model(model, rngs=nnx.Rngs(0), dtype=dtype))
    set_attention(abstract, ATTENTION[attention])
    return abstract


def _model(options: ModelOptions, classes: int) -> tuple[Config, Preprocessing, Checkpoint | None]:
    rates = {name: getattr(options, name) for name in ("drop_rate", "attn_drop_rate", "drop_path_rate")}
    changes = {name: value for name in _CHANGES if (value := getattr(options, name)) is not None}
    if options.weights is not None:
        import conversion

        defaults = ModelOptions()
        new_only = [name for name in _NEW_ONLY if getattr(options, name) != getattr(defaults, name)]
        if new_only:
            raise VitportError(
                f"model.{new_only[0]} applies to a model that starts from random values, and model.weights are given: "
                "leave one of them out."
            )
        checkpoint = conversion.prepare(
            options.name,
            weights=options.weights,
            num_classes=classes,
            image_size=options.image_size,
            family_head=True,
        )
        if options.name is not None:
            _check_named(options, get_model(options.name).config, checkpoint.config)
        return checkpoint.config.replace(**rates), _with_crop(options, checkpoint.preprocessing), checkpoint
    if options.name is None:
        raise VitportError("The run has no model: give model.name, as `vitport models` lists them, or model.weights.")
    model = get_model(options.name)
    if options.image_size is not None:
        changes["image_size"] = options.image_size
    if options.pool is not None:
        changes |= {"pool": options.pool, "class_token": options.pool == "token"}
    config = model.config.replace(num_classes=classes, **changes, **rates)
    check_scheme(options, config)
    from conversion.format import fit_preprocessing

    return config, _with_crop(options, fit_preprocessing(model.preprocessing, config)), None


def _check_named(options: ModelOptions, named: Config, found: Config) -> None:
    """Refuses weights of another model than the name's; elsewhere weights win over a name."""
    own, wanted = _sizes(found), _sizes(named)
    other = [f"{name} {own.get(name)} instead of {value}" for name, value in wanted.items() if own.get(name) != value]
    if other:
        raise VitportError(
            f"{options.weights} does not hold {options.name} ({', '.join(other)}): leave model.name out, or give its "
            "weights."
        )


def _sizes(config: Config) -> dict[str, Any]:
    sizes: dict[str, Any] = {name: getattr(config, name) for name in family_of(config).size_fields}
    for segment, block in zip(segments(config), block_sizes(config), strict=True):
        sizes |= {f"heads in {segment.prefix}": block.heads, f"hidden units in {segment.prefix}": block.hidden}
    return sizes


def _with_crop(options: ModelOptions, preprocessing: Preprocessing) -> Preprocessing:
    changes = {name: value for name in ("resize", "crop_fraction") if (value := getattr(options, name)) is not None}
    return preprocessing.replace(**changes)


def _fresh_params(model: Config, options: TrainConfig) -> Params:
    params = get_params(make_model(model, rngs=nnx.Rngs(options.seed)))
    return initialized(params, options.model, model, jax.random.key(options.seed))


def _read_params(weights: Checkpoint, model: Config, options: TrainConfig) -> Callable[[], Params]:
    read: list[Params] = []

    def params() -> Params:
        if not read:
            made = vit_jax.create_model(
                model, weights=weights, num_classes=model.num_classes, rngs=nnx.Rngs(options.seed)
            )
            read.append({path: jax.device_get(array) for path, array in get_params(made).items()})
        return {path: jnp.asarray(array) for path, array in read[0].items()}

    return params
