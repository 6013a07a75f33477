"""Models by name, by config, or from weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vit_spec import Config, Pooling, VitportError, get_config, parameters
from vit_torch.families import make_model
from vit_torch.model import VisionModel

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
    dtype: torch.dtype | None = None,
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
        dtype: of the parameters; ``None`` means torch's default, float32.
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
    if weights is None:
        config = get_config(name_or_config, fields)
        return make_model(config).to(dtype)
    import conversion

    checkpoint = conversion.prepare(name_or_config, weights=weights, **fields)
    with torch.device("meta"):
        model = make_model(checkpoint.config)
    if any(entry.name not in checkpoint.params for entry in parameters(checkpoint.config)):  # the head alone may lack
        model.reset_classifier(checkpoint.config.num_classes)
    _fill(model, checkpoint, dtype or torch.get_default_dtype())
    return model


def _fill(model: VisionModel[Any], checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    """Gives a model on the meta device its weights; a head that is real already is kept."""
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items() if not tensor.is_meta}
    state |= {name: _tensor(array).to(dtype) for name, array in checkpoint.params.items()}
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise VitportError(f"The weights do not fit the model: {' '.join(str(error).split())}") from error


def _tensor(array: Any) -> torch.Tensor:
    """A copy of a numpy array; torch knows no numpy dtype for bfloat16, so those travel as bits."""
    if array.dtype.name == "bfloat16":
        return torch.tensor(array.view("uint16")).view(torch.bfloat16)
    return torch.tensor(array)
