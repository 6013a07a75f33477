"""Optimizer, schedule and loss: one frozen dataclass for each part of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vit_spec import VitportError

OptimizerName = Literal["adamw", "sgd", "lamb", "adafactor", "muon"]
ScheduleName = Literal["cosine", "linear", "rsqrt", "constant"]
LossName = Literal["softmax", "sigmoid"]
BACKBONE = "backbone"
"""In place of a pattern of frozen parameters: all but those of the classifier."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the step."""

    name: ScheduleName = "cosine"
    """Shape between warm-up and cool-down: half a cosine or a line, down to ``final``; the inverse square root of the
    step (Zhai et al. 2022, section 3.3); or constant."""
    peak: float | None = 1e-3
    """Largest learning rate, at the end of the warm-up; None: fine-tuning's, by batch and the model's width."""
    final: float = 0.0
    """Learning rate at the end of ``cosine`` and ``linear``."""
    warmup: int | float = 0
    """Steps of the linear rise from 0 to ``peak``; below 1, their share of the run."""
    cooldown: int = 0
    """Steps of the linear fall to 0 at the end, for ``rsqrt`` and ``constant``."""
    timescale: int = 10_000
    """Steps before ``rsqrt`` begins to fall."""

    def __post_init__(self) -> None:
        if self.peak is not None and not 0 < self.peak < float("inf"):
            raise VitportError(f"schedule.peak must be a learning rate above 0; got {self.peak}.")
        for name, least in {"warmup": 0, "cooldown": 0, "timescale": 1}.items():
            if getattr(self, name) < least:
                raise VitportError(f"schedule.{name} must be {least} steps or more; got {getattr(self, name)}.")
        if self.warmup > 1 and self.warmup != int(self.warmup):
            raise VitportError(f"schedule.warmup must be whole steps, or a share below 1; got {self.warmup}.")
        if self.cooldown and self.name in ("cosine", "linear"):
            raise VitportError(
                f"schedule.cooldown={self.cooldown} applies to rsqrt and constant, not to {self.name}: set it to 0."
            )


@dataclass(frozen=True)
class Optimizer:
    """The optimizer, which turns gradients into updates."""

    name: OptimizerName = "adamw"
    """AdamW (Loshchilov & Hutter 2019); SGD with momentum; LAMB (You et al. 2020), with the trust ratio only where
    weights decay, as in NVIDIA's and timm's code; Adafactor as in Zhai et al. 2022; or Muon (Jordan et al. 2024) for
    the matrices of the blocks, with Adam for the rest."""
    beta1: float = 0.9
    """Decay of the first moment; for SGD, the momentum."""
    beta2: float = 0.999
    """Decay of the second moment; for Adafactor, its upper bound."""
    epsilon: float = 1e-8
    """Added to the square root of the second moment."""
    weight_decay: float = 0.05
    """Decoupled weight decay (Loshchilov & Hutter 2019), times the learning rate, of the kernels of linear layers and
    convolutions only."""
    clip_norm: float | None = None
    """Largest global norm of the gradients; None: no clipping."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each block to the block before it (Bao et al. 2022, BEiT, appendix)."""
    head_factor: float = 1.0
    """Factor on the learning rate of the classifier, for one that starts anew on a trained backbone."""
    frozen: tuple[str, ...] = ()
    """Parameters that are not trained: ``backbone``, which is all but the classifier; beginnings of paths, such as
    ``patch_embed`` or ``blocks/0``; or patterns, such as ``blocks/[0-5]`` or ``*/bias``. Short: --freeze."""
    sharpness: float = 0.0
    """Radius of sharpness-aware minimisation (Foret et al. 2021); 0: off."""

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise VitportError(f"optimizer.{name} must be in [0, 1); got {getattr(self, name)}.")
        if not 0 < self.layer_decay <= 1:
            raise VitportError(f"optimizer.layer_decay must be above 0 and at most 1; got {self.layer_decay}.")
        if not 0 < self.head_factor < float("inf"):
            raise VitportError(f"optimizer.head_factor must be a finite number above 0; got {self.head_factor}.")
        for name in ("epsilon", "weight_decay", "sharpness"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise VitportError(f"optimizer.{name} must be a finite 0 or more; got {getattr(self, name)}.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise VitportError(f"optimizer.clip_norm must be above 0, or None; got {self.clip_norm}.")


@dataclass(frozen=True)
class Loss:
    """The loss that training minimises."""

    name: LossName = "softmax"
    """Cross entropy over classes, or the sum of one binary cross entropy per class (Beyer et al. 2022)."""
    binary: bool = False
    """For ``sigmoid``: every class with a share of a mixed image gets target 1 (Wightman et al. 2021)."""
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """Factor on each class's share of the loss, as PyTorch's cross entropy takes them: numbers in the order of the
    classes, or ``balanced``, images / (classes x images of the class), for classes of different sizes."""
    smoothing: float = 0.0
    """Label smoothing: share of each target that is spread evenly over the classes (Szegedy et al. 2016)."""
    mixup: float = 0.0
    """Parameter of mixup's Beta distribution (Zhang et al. 2018); 0: no mixup."""
    cutmix: float = 0.0
    """The same for CutMix (Yun et al. 2019). With both, each batch uses one of them with equal probability."""
    distillation: Literal["none", "hard", "soft"] = "none"
    """Distillation to the distillation token where the model has one (Touvron et al. 2021, section 4), else to the
    head."""
    temperature: float = 1.0
    """Temperature of soft distillation, which divides the logits."""
    distillation_weight: float = 0.5
    """Weight of the distillation loss; the classification loss has the rest."""

    @property
    def mixes(self) -> bool:
        """Whether images are mixed at all."""
        return bool(self.mixup or self.cutmix)

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise VitportError(f"loss.{name} must be a finite 0 or more; got {getattr(self, name)}.")
        if self.binary and (self.name != "sigmoid" or self.smoothing):
            raise VitportError(
                f"loss.binary needs name='sigmoid' and no smoothing; got name={self.name!r} and "
                f"smoothing={self.smoothing}."
            )
        weights = self.class_weights
        if not isinstance(weights, str) and not all(0 <= weight < float("inf") for weight in weights):
            raise VitportError(f"loss.class_weights must be finite numbers, 0 or more; got {weights}.")
        if not self.temperature > 0:
            raise VitportError(f"loss.temperature must be above 0; got {self.temperature}.")
        for name in ("smoothing", "distillation_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise VitportError(f"loss.{name} must be from 0 to 1; got {getattr(self, name)}.")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, apart from data and devices."""

    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    loss: Loss = field(default_factory=Loss)
    accumulation: int = 1
    """Gradient accumulation: microbatches per batch, whose gradients are averaged for one step."""
    ema: float = 0.0
    """Decay of the exponential moving average of the parameters; 0: no average."""

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise VitportError(f"recipe.accumulation must be 1 or more; got {self.accumulation}.")
        if not 0 <= self.ema < 1:
            raise VitportError(f"recipe.ema must be in [0, 1); got {self.ema}.")
