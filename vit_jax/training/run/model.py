"""From a run's options to its model: config, preprocessing, and parameters, fresh or read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

import vit_jax
from vit_jax.families import make_model
from vit_jax.params import get_params, parameters_by_path
from vit_jax.pure import Params
from vit_jax.training.evaluation.class_names import may_be_same
from vit_jax.training.recipe.config import Head, ModelOptions, TrainConfig
from vit_jax.training.run.init_schemes import check_scheme, initialized
from vit_spec import Config, Parameter, Preprocessing, Stage, VitportError, block_sizes, family_of, get_model, segments

if TYPE_CHECKING:
    from conversion import Checkpoint

_CHANGES = (
    "patch_size", "in_channels", "depth", "depths", "embed_dim", "num_heads", "window_sizes", "layer_scale",
    "activation", "representation_size",
)  # fmt: skip
_NEW_ONLY = (*_CHANGES, "initialization", "positions")
_POOLS = {
    "token": "the class token",
    "avg": "the mean of the patches",
    "map": "the attention pooling",
    "token_avg": "class token and mean of the patches",
}
LARGEST, USUAL = 400, 224
"""Pixels a side: weights for more than the first are trained at the second, unless the options say otherwise. DINOv2's
are such: their position table is of 518 pixels, and their own code evaluates them at 224."""


@dataclass(frozen=True)
class RunModel:
    """The model of a run; made by :func:`model_of`."""

    config: Config
    preprocessing: Preprocessing
    weights: Checkpoint | None
    """What it starts from, fitted to the config."""
    notes: tuple[str, ...] = ()
    """What was chosen for the user, in sentences."""


def model_of(options: ModelOptions, classes: Sequence[str]) -> RunModel:
    """
    Args:
        classes: names of the data's classes.

    Raises:
        VitportError: for options that do not fit together, or weights that cannot be read or do not fit them.
    """
    return _new(options, len(classes)) if options.weights is None else _read(options, options.weights, classes)


def parameters_of(model: RunModel, options: TrainConfig) -> Callable[[], Params]:
    """Makes the parameters before the first step. A new head on weights that were read starts at zero
    (Dosovitskiy et al. 2021, section 3.2), so that the first steps do not move the backbone at random."""
    weights, config = model.weights, model.config
    if weights is None:
        return lambda: _fresh(config, options)
    new = {path for path, it in parameters_by_path(config).items() if _is_new(it, weights)}
    read: list[Params] = []

    def params() -> Params:
        if not read:
            made = vit_jax.create_model(
                config, weights=weights, num_classes=config.num_classes, rngs=nnx.Rngs(options.seed)
            )
            read.append({path: jax.device_get(array) for path, array in get_params(made).items()})
        return {path: jnp.zeros_like(array) if path in new else jnp.asarray(array) for path, array in read[0].items()}

    return params


def _is_new(parameter: Parameter, weights: Checkpoint) -> bool:
    return parameter.stage is Stage.CLASSIFIER and parameter.name not in weights.params


def _fresh(config: Config, options: TrainConfig) -> Params:
    params = get_params(make_model(config, rngs=nnx.Rngs(options.seed)))
    return initialized(params, options.model, config, jax.random.key(options.seed))


def _new(options: ModelOptions, classes: int) -> RunModel:
    if options.name is None:
        raise VitportError("The run has no model: give model.name, as `vitport models` lists them, or model.weights.")
    if options.head != "auto":
        raise VitportError(f"model.head={options.head} is for a model that starts from weights: give model.weights.")
    model = get_model(options.name)
    changes = {name: value for name in _CHANGES if (value := getattr(options, name)) is not None}
    if options.image_size is not None:
        changes["image_size"] = options.image_size
    if options.pool is not None:
        changes |= {"pool": options.pool, "class_token": options.pool in ("token", "token_avg")}
    config = model.config.replace(num_classes=classes, **changes, **_rates(options))
    check_scheme(options, config)
    from conversion.format import fit_preprocessing

    return RunModel(config, _with_crop(options, fit_preprocessing(model.preprocessing, config)), None)


def _read(options: ModelOptions, weights: str, classes: Sequence[str]) -> RunModel:
    import conversion
    from conversion.changes.trained import before_training

    defaults = ModelOptions()
    new_only = [name for name in _NEW_ONLY if getattr(options, name) != getattr(defaults, name)]
    if new_only:
        raise VitportError(
            f"model.{new_only[0]} applies to a model that starts from random values, and model.weights are given: "
            "leave one of them out."
        )
    given = {name: value for name in ("image_size", "pool") if (value := getattr(options, name)) is not None}
    checkpoint = conversion.prepare(
        options.name, weights=weights, num_classes=len(classes), family_head=options.head != "keep", **given
    )
    notes = []
    if options.image_size is None and min(checkpoint.config.image_size) > LARGEST:
        own, size = checkpoint.config.image_size, _usual(checkpoint.config)
        notes.append(
            f"trains on images of {size[0]}x{size[1]} pixels, where the weights are for {own[0]}x{own[1]}, which cost "
            f"{own[0] * own[1] / size[0] / size[1]:.0f} times as much or more: --model.image-size says otherwise"
        )
        checkpoint = conversion.prepare(None, weights=checkpoint, num_classes=len(classes), image_size=size)
    if options.name is not None:
        _check_named(options, get_model(options.name).config, checkpoint.config)
    notes += before_training(checkpoint)
    checkpoint, said = _with_head(checkpoint, options.head, classes)
    config = checkpoint.config.replace(**_rates(options))
    return RunModel(config, _with_crop(options, checkpoint.preprocessing), checkpoint, (*notes, said))


def _rates(options: ModelOptions) -> dict[str, float]:
    return {name: getattr(options, name) for name in ("drop_rate", "attn_drop_rate", "drop_path_rate")}


def _usual(config: Config) -> tuple[int, int]:
    """About :data:`USUAL` pixels for the shorter side, in whole patches, with the same aspect ratio."""
    shorter, patch = min(config.image_size), config.patch_size
    height, width = (max(round(side / shorter * USUAL / patch), 1) * patch for side in config.image_size)
    return height, width


def _with_head(checkpoint: Checkpoint, head: Head, classes: Sequence[str]) -> tuple[Checkpoint, str]:
    """The checkpoint with its own head, or without one where another belongs there, and which, in words."""
    own = {it.name for it in parameters_by_path(checkpoint.config).values() if it.stage is Stage.CLASSIFIER}
    has_own = own <= checkpoint.params.keys()
    reads = _POOLS.get(getattr(checkpoint.config, "pool", ""), "the mean of all tokens")
    if head == "keep" and not has_own:
        raise VitportError(
            f"model.head=keep needs weights with a head of {len(classes)} classes, as the data have: leave it out."
        )
    if has_own and (head == "keep" or (head == "auto" and may_be_same(checkpoint.labels, classes))):
        return checkpoint, f"keeps the weights' head of {len(classes)} classes; --model.head new starts another"
    if has_own:
        checkpoint = replace(checkpoint, params=checkpoint.params.without(own), labels=None)
    return checkpoint, f"a new head of {len(classes)} classes, which starts at zero, reads {reads}"


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
