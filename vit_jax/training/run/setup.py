"""From a configuration to everything that a run needs, before anything is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

import vit_jax
from vit_jax.inference.slices import sliced
from vit_jax.layers.attention import ATTENTION, set_attention
from vit_jax.params import get_params
from vit_jax.training.data import Source, check_channels, open_sources
from vit_jax.training.devices.engine import Engine, jit_engine, own_rows, pmap_engine
from vit_jax.training.devices.sharding import MeshShape, check_divides, make_mesh
from vit_jax.training.recipe.config import ModelOptions, TrainConfig
from vit_jax.training.step.forward import Forward, Inference, Params
from vit_jax.training.step.initialization import initialized, sincos2d
from vit_jax.training.step.optimizer import make_optimizer, make_schedule
from vit_jax.training.step.teacher import load_teacher
from vit_jax.training.step.update import TrainState, init_state
from vit_jax.vit.vision_transformer import VisionTransformer
from vit_spec import Preprocessing, ViTConfig, VitportError, get_model

if TYPE_CHECKING:
    from conversion import Checkpoint

_CHANGES = (
    "patch_size", "in_channels", "depth", "embed_dim", "num_heads", "layer_scale", "activation", "representation_size",
)  # fmt: skip
_NEW_ONLY = (*_CHANGES, "pool", "initialization", "positions")


@dataclass(frozen=True)
class Setup:
    """A run that can begin; made by :func:`set_up`."""

    options: TrainConfig
    train: Source
    validation: Source | None
    model: ViTConfig
    preprocessing: Preprocessing
    steps: int
    mesh: Mesh
    """All devices; under pmap that of evaluation."""
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    engine: Engine
    make_state: Callable[[], TrainState]
    """The state before the first step, where the engine wants it made."""

    @cached_property
    def shapes(self) -> TrainState:
        """The state's shapes, with the shardings in which it is made and restored."""
        shapes = jax.eval_shape(self.make_state)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.engine.layout(shapes),
        )

    @property
    def rows(self) -> Any:
        """Which rows of each batch this process reads."""
        return own_rows(self.mesh, self.options.batch)

    def first_state(self) -> TrainState:
        """The state before the first step, on the devices."""
        return self.engine.place_state(jax.jit(self.make_state, out_shardings=self.engine.layout(self.shapes))())

    def inference(self) -> Callable[[Params, jax.Array], jax.Array]:
        """The model in evaluation mode: parameters and pictures (B, H, W, C) -> logits (B, K)."""
        inference = Inference(_abstract(self.model, self.options))
        return sliced(inference) if self.mesh.size == 1 else inference

    def record(self) -> dict[str, Any]:
        """What the weights mean, as JSON values; beside them it makes a checkpoint that `vitport convert` reads."""
        from conversion import Checkpoint

        checkpoint = Checkpoint.of(self.model, {}, self.preprocessing, self.train.classes)
        recipe, data = self.options.recipe, self.options.data
        return checkpoint.record(sha256="") | {
            "pictures": len(self.train),
            "recipe": {"optimizer": dataclasses.asdict(recipe.optimizer), "ema": recipe.ema},
            "order": {"batch": self.options.batch, "seed": self.options.seed, "data.repeats": data.repeats},
        }


def set_up(options: TrainConfig) -> Setup:
    """Opens the data and works out model, mesh and schedule; compiles nothing and makes no large array.

    Raises:
        VitportError: for everything that can be known to be wrong now.
    """
    train, validation = open_sources(options.data)
    model, preprocessing, weights = _model(options.model, len(train.classes))
    check_channels(preprocessing)
    mesh = make_mesh(options.mesh if options.parallel == "jit" else MeshShape())
    if options.parallel == "pmap" and options.mesh != MeshShape():
        raise VitportError("parallel=pmap copies everything to every device and takes no mesh: leave mesh out.")
    check_divides(model, options.batch, options.recipe.accumulation, mesh)
    _check_attention(model, options)
    steps = options.total_steps(len(train))
    abstract = _abstract(model, options)
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

    return Setup(options, train, validation, model, preprocessing, steps, mesh, schedule, optimizer, engine, make_state)


def _check_attention(model: ViTConfig, options: TrainConfig) -> None:
    if options.attention != "cudnn":
        return
    facts = {
        f"the device is a {jax.default_backend()}": jax.default_backend() != "gpu",
        f"precision is {options.precision}": options.precision != "bfloat16",
        f"heads are {model.head_dim} wide": model.head_dim % 8 != 0,
        f"attn_drop_rate is {model.attn_drop_rate}": model.attn_drop_rate > 0,
    }
    against = [fact for fact, true in facts.items() if true]
    if against:
        raise VitportError(
            f"attention=cudnn is for NVIDIA GPUs in bfloat16, heads of a multiple of 8, whose weights are not dropped, "
            f"and {', '.join(against)}: choose fused."
        )


def _model(options: ModelOptions, classes: int) -> tuple[ViTConfig, Preprocessing, Checkpoint | None]:
    rates = {name: getattr(options, name) for name in ("drop_rate", "attn_drop_rate", "drop_path_rate")}
    changes = {name: value for name in _CHANGES if (value := getattr(options, name)) is not None}
    if options.weights is not None:
        import conversion

        usual = ModelOptions()
        of_fresh = [name for name in _NEW_ONLY if getattr(options, name) != getattr(usual, name)]
        if of_fresh:
            raise VitportError(
                f"model.{of_fresh[0]} is for a model that starts at random, and model.weights are given: leave one of "
                "them out."
            )
        checkpoint = conversion.prepare(
            options.name, weights=options.weights, num_classes=classes, image_size=options.image_size
        )
        if options.name is not None:
            _check_named(options, get_model(options.name).config, checkpoint.config)
        return checkpoint.config.replace(**rates), _cut(options, checkpoint.preprocessing), checkpoint
    if options.name is None:
        raise VitportError("A run needs a model: give model.name, as `vitport models` lists them, or model.weights.")
    model = get_model(options.name)
    if options.image_size is not None:
        changes["image_size"] = options.image_size
    if options.pool is not None:
        changes |= {"pool": options.pool, "class_token": options.pool == "token"}
    config = model.config.replace(num_classes=classes, **changes, **rates)
    if options.positions == "sincos2d":
        sincos2d(config)  # now, rather than when the values are made
    from conversion.format import fit_preprocessing

    return config, _cut(options, fit_preprocessing(model.preprocessing, config)), None


def _check_named(options: ModelOptions, named: ViTConfig, found: ViTConfig) -> None:
    """What fine-tuning does not change; weights win over a name elsewhere, but here it says what is to be trained."""
    facts = ("patch_size", "embed_dim", "depth", "num_heads", "hidden_dim")
    other = [f"{name} {getattr(found, name)} instead of {getattr(named, name)}" for name in facts
             if getattr(found, name) != getattr(named, name)]  # fmt: skip
    if other:
        raise VitportError(
            f"{options.weights} is no {options.name} ({', '.join(other)}): leave model.name out, or give its weights."
        )


def _cut(options: ModelOptions, preprocessing: Preprocessing) -> Preprocessing:
    changes = {name: value for name in ("resize", "crop_fraction") if (value := getattr(options, name)) is not None}
    return preprocessing.replace(**changes)


def _abstract(model: ViTConfig, options: TrainConfig) -> VisionTransformer:
    """Without arrays, computing in the run's precision; its parameters are in float32."""
    dtype = jnp.dtype(options.precision)
    abstract = nnx.eval_shape(lambda: VisionTransformer(model, rngs=nnx.Rngs(0), dtype=dtype))
    set_attention(abstract, ATTENTION[options.attention])
    return abstract


def _fresh_params(model: ViTConfig, options: TrainConfig) -> Params:
    params = get_params(VisionTransformer(model, rngs=nnx.Rngs(options.seed)))
    o = options.model
    return initialized(params, o.initialization, o.positions, model, jax.random.key(options.seed))


def _read_params(weights: Checkpoint, model: ViTConfig, options: TrainConfig) -> Callable[[], Params]:
    read: list[Params] = []

    def params() -> Params:
        if not read:
            made = vit_jax.create_model(
                model, weights=weights, num_classes=model.num_classes, rngs=nnx.Rngs(options.seed)
            )
            read.append({path: jax.device_get(array) for path, array in get_params(made).items()})
        return {path: jnp.asarray(array) for path, array in read[0].items()}

    return params
