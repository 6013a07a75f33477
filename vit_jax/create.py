"""Models by name, by config, or from weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vit_jax.params import get_params, set_params
from vit_jax.vit.vision_transformer import VisionTransformer
from vit_spec import ViTConfig, VitportError, get_model

if TYPE_CHECKING:
    from conversion import Checkpoint


def create_model(
    name_or_config: str | ViTConfig | None = None,
    *,
    weights: str | Path | Checkpoint | None = None,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    drop_rate: float | None = None,
    attn_drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    rngs: nnx.Rngs | None = None,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
) -> VisionTransformer:
    """A Vision Transformer, in training mode.

    Args:
        name_or_config: a registered name (``vit_spec.list_models``) or a config; may be left out where the weights say
            what they are.
        weights: a path, or a ``conversion.Checkpoint``; ``None`` initialises at random. What the weights show by their
            shapes wins over the name.
        num_classes: classes of the head, 0 for features; another number than the weights' gives a fresh head.
        image_size: pixels, a side or (height, width); the position table of the weights is resized to it.
        drop_rate, attn_drop_rate, drop_path_rate: as in ``ViTConfig``.
        rngs: its stream ``params`` initialises what the weights do not give; ``None`` means ``nnx.Rngs(0)``.
        dtype: of the computation.
        param_dtype: of the parameters.

    Raises:
        VitportError: for an unknown name, options that contradict each other, or weights that do not fit.
    """
    changes = {
        "drop_rate": drop_rate,
        "attn_drop_rate": attn_drop_rate,
        "drop_path_rate": drop_path_rate,
    }
    rngs = nnx.Rngs(0) if rngs is None else rngs
    if weights is not None:
        import conversion

        checkpoint = conversion.prepare(name_or_config, weights=weights, num_classes=num_classes, image_size=image_size)
        config = _changed(checkpoint.config, changes)
        model = nnx.eval_shape(
            lambda: VisionTransformer(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype)
        )
        if num_classes and not any(name.startswith("head") for name in checkpoint.params):
            model.reset_head(rngs=rngs)
        _fill(model, checkpoint)
        return model
    if name_or_config is None:
        raise VitportError("create_model needs a model's name, a ViTConfig, or weights=.")
    config = get_model(name_or_config).config if isinstance(name_or_config, str) else name_or_config
    config = _changed(config, {"num_classes": num_classes, "image_size": image_size} | changes)
    return VisionTransformer(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)


def _changed(config: ViTConfig, changes: dict[str, Any]) -> ViTConfig:
    return config.replace(**{name: value for name, value in changes.items() if value is not None})


def _fill(model: VisionTransformer, checkpoint: Checkpoint) -> None:
    """Gives an abstract model its weights; a head that is real already is kept."""
    import conversion

    params = {path: array for path, array in get_params(model).items() if isinstance(array, jax.Array)}
    set_params(model, params | conversion.to_flax(checkpoint.params))
