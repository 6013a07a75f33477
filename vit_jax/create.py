"""Models by name, by config, or from weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.families import make_model
from vit_jax.model import VisionModel
from vit_jax.params import get_params, set_params
from vit_spec import Config, Pooling, get_config, parameters

if TYPE_CHECKING:
    from conversion import Checkpoint


def create_model(
    name_or_config: str | Config | None = None,
    *,
    weights: str | Path | Checkpoint | None = None,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    pool: Pooling | None = None,
    drop_rate: float | None = None,
    attn_drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    rngs: nnx.Rngs | None = None,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
    **fields: Any,
) -> VisionModel[Any]:
    """A Vision Transformer, in training mode.

    Args:
        name_or_config: a registered name (``vit_spec.list_models``) or a config; may be left out where the weights say
            what they are.
        weights: a path, or a ``conversion.Checkpoint``; ``None`` initialises at random. What the weights show by their
            shapes wins over the name; they are fitted to the other arguments as :func:`conversion.prepare` says.
        num_classes: classes of the head, 0 for features; another number than the weights' gives a fresh head.
        image_size: pixels, a side or (height, width); the position table of the weights is resized to it.
        in_channels: channels of the images; the patch kernel of the weights is summed or repeated to fit.
        pool: what the head of a ViT reads; weights must hold what it needs.
        drop_rate, attn_drop_rate, drop_path_rate: as in the config.
        rngs: its stream ``params`` initialises what the weights do not give; ``None`` means ``nnx.Rngs(0)``.
        dtype: of the computation.
        param_dtype: of the parameters.
        fields: any other field of the config, ``ViTConfig`` for a ViT. timm's names for fields are understood too:
            ``img_size``, ``in_chans``, ``global_pool`` and the others of ``vit_spec.vit.options.TIMM_NAMES``.

    Raises:
        VitportError: for an unknown name, fields that contradict each other, or weights that do not fit.
    """
    named = {
        "num_classes": num_classes,
        "image_size": image_size,
        "in_channels": in_channels,
        "pool": pool,
        "drop_rate": drop_rate,
        "attn_drop_rate": attn_drop_rate,
        "drop_path_rate": drop_path_rate,
    }
    fields |= {name: value for name, value in named.items() if value is not None}
    rngs = nnx.Rngs(0) if rngs is None else rngs
    if weights is None:
        config = get_config(name_or_config, fields)
        return make_model(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
    import conversion

    checkpoint = conversion.prepare(name_or_config, weights=weights, **fields)
    model = nnx.eval_shape(
        lambda: make_model(checkpoint.config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype)
    )
    if any(entry.name not in checkpoint.params for entry in parameters(checkpoint.config)):  # the head alone may lack
        model.reset_classifier(checkpoint.config.num_classes, rngs=rngs)
    _fill(model, checkpoint)
    return model


def _fill(model: VisionModel[Any], checkpoint: Checkpoint) -> None:
    """Gives an abstract model its weights; a head that is real already is kept."""
    import conversion

    params = {path: array for path, array in get_params(model).items() if isinstance(array, jax.Array)}
    set_params(model, params | conversion.to_flax(checkpoint.params))
