"""What a run that starts from weights does unless it is told otherwise: fine-tuning, or a head on frozen features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_jax.training.recipe.config import CheckpointOptions, TrainConfig
from vit_jax.training.recipe.data import Augmentation, Data
from vit_jax.training.recipe.recipe import BACKBONE, Optimizer, Recipe, Schedule

_AUGMENT = Augmentation("none", flip=0.0)
"""What can change in an image and leave its class depends on the data: a flip changes digits, letters and signs, a crop
loses small objects."""
_KEEP = CheckpointOptions(every="epoch")
FINETUNE = TrainConfig(
    data=Data(augment=_AUGMENT),
    recipe=Recipe(
        Optimizer("adamw", weight_decay=0.05, clip_norm=1.0, layer_decay=0.75, head_factor=10.0),
        Schedule("cosine", peak=None, warmup=0.1),
    ),
    keep=_KEEP,
    batch=32,
    epochs=10,
)
"""He et al. 2022 (MAE), table 9, and FINETUNE.md of their code for ViT-L and H (for ViT-B it has layer decay 0.65 and
half the learning rate): AdamW with weight decay 0.05, layer decay 0.75, a cosine after a warm-up of a tenth (5 of 50
epochs), and the learning rate of :func:`usual_peak`. Ours are batch and length, which suit hundreds to thousands of
images; a head that learns ten times as fast (as in Chen et al. 2018, DeepLab); gradients clipped at 1 (as in Steiner
et al. 2022); and no mixup, CutMix and RandAugment, which need long runs."""
LINEAR_PROBE = TrainConfig(
    data=Data(augment=_AUGMENT),
    recipe=Recipe(
        Optimizer("adamw", weight_decay=0.0, frozen=(BACKBONE,)),
        Schedule("cosine", peak=1e-2, warmup=0.1),
    ),
    keep=_KEEP,
    batch=32,
    epochs=20,
)
"""A head on frozen features without weight decay (He et al. 2022, table 10). Ours is Adam, because hundreds of images
make too few steps for their LARS."""


def usual_peak(batch: int, width: int) -> float:
    """The largest learning rate of fine-tuning: 1e-3 x batch / 256 for a model of width 768 (He et al. 2022, table 9),
    and for others by the inverse square root of their width (Vaswani et al. 2017, section 5.3).

    Args:
        batch: images a step.
        width: channels of a token in the last block.
    """
    return 1e-3 * batch / 256 * (768 / width) ** 0.5


def completed(values: Mapping[str, Any], weights: str | None = None) -> Mapping[str, Any]:
    """A file's options; where weights are given, those that it lacks are :data:`FINETUNE`'s.

    Args:
        weights: that are given elsewhere, if the file gives none.
    """
    model = values.get("model")
    if weights is None and not (isinstance(model, Mapping) and model.get("weights")):
        return values
    base = FINETUNE.to_dict()
    if values.get("steps") is not None:
        base["epochs"] = None
    return _over(base, values)


def _over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: _over(base[name], value) for name, value in values.items()
            if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)}  # fmt: skip
    return {**base, **values, **both}


def in_words(options: TrainConfig) -> str:
    """What decides how weights change, in a line."""
    optimizer, schedule = options.recipe.optimizer, options.recipe.schedule
    warmup = f"{schedule.warmup:.0%} of the steps" if schedule.warmup < 1 else f"{schedule.warmup:.0f} steps"
    parts = [f"{optimizer.name} at {schedule.peak:.3g} after a warm-up over {warmup}"]
    if optimizer.head_factor != 1:
        parts.append(f"{optimizer.head_factor:g} times that for the head")
    if optimizer.layer_decay != 1:
        parts.append(f"layer decay {optimizer.layer_decay:g}")
    parts.append(f"weight decay {optimizer.weight_decay:g}")
    if optimizer.clip_norm is not None:
        parts.append(f"gradients clipped at {optimizer.clip_norm:g}")
    if optimizer.frozen:
        parts.append(f"frozen: {' '.join(optimizer.frozen)}")
    length = f"{options.steps} steps" if options.steps is not None else f"{options.epochs:g} epochs"
    return f"{', '.join(parts)}, {length} of batch {options.batch}"
