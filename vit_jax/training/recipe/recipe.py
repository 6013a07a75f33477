"""How a model is trained, apart from data and devices: one frozen dataclass for each part of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vit_spec import VitportError

OptimizerName = Literal["adamw", "sgd", "lamb", "adafactor", "muon"]
ScheduleName = Literal["cosine", "linear", "rsqrt", "constant"]
LossName = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps."""

    name: ScheduleName = "cosine"
    """Form between warm-up and cool-down: half a cosine, a line, or the inverse root of the step (Zhai et al. 2022,
    section 3.3), all but the last two down to ``final``."""
    peak: float = 1e-3
    """Largest learning rate, at the end of the warm-up."""
    final: float = 0.0
    """Learning rate at the end of a cosine or a line."""
    warmup: int = 0
    """Steps of a linear rise from 0 to ``peak``."""
    cooldown: int = 0
    """Steps of a linear fall to 0 at the end, for ``rsqrt`` and ``constant``."""
    timescale: int = 10_000
    """Steps after which ``rsqrt`` begins to fall."""

    def __post_init__(self) -> None:
        if not 0 < self.peak < float("inf"):
            raise VitportError(f"schedule.peak={self.peak} teaches nothing: give a learning rate above 0.")
        if min(self.warmup, self.cooldown) < 0 or self.timescale < 1:
            raise VitportError(
                f"schedule.warmup={self.warmup}, cooldown={self.cooldown}, timescale={self.timescale} count steps: "
                "give none below 0, and a timescale of 1 or more."
            )
        if self.cooldown and self.name in ("cosine", "linear"):
            raise VitportError(
                f"schedule.cooldown={self.cooldown} is for rsqrt and constant: {self.name} ends by itself."
            )


@dataclass(frozen=True)
class Optimizer:
    """What turns gradients into steps."""

    name: OptimizerName = "adamw"
    """AdamW (Loshchilov & Hutter 2019), SGD with momentum, LAMB (You et al. 2020) with its trust ratio on what is
    decayed alone, as NVIDIA's and timm's have it, Adafactor as in Zhai et al. 2022, or Muon (Jordan et al. 2024) for
    the matrices of the blocks and Adam for the rest."""
    beta1: float = 0.9
    """Decay of the first moment; of SGD the momentum."""
    beta2: float = 0.999
    """Decay of the second moment; of Adafactor its cap."""
    epsilon: float = 1e-8
    """What is added to the root of the second moment."""
    weight_decay: float = 0.05
    """Decoupled (Loshchilov & Hutter 2019), times the learning rate; on the kernels of linear layers and convolutions
    alone."""
    clip_norm: float | None = None
    """Largest norm of all gradients together."""
    layer_decay: float = 1.0
    """Factor on the learning rate from each block to the one before it (Bao et al. 2022, BEiT, appendix)."""
    frozen: tuple[str, ...] = ()
    """Beginnings of the paths of parameters that stay as they are, such as ``patch_embed`` or ``blocks/0``."""
    sharpness: float = 0.0
    """Radius of sharpness-aware minimisation (Foret et al. 2021); 0 means none."""

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise VitportError(
                    f"optimizer.{name}={getattr(self, name)} is no decay: give a number from 0 to below 1."
                )
        if not 0 < self.layer_decay <= 1:
            raise VitportError(f"optimizer.layer_decay={self.layer_decay} is no factor: give one above 0, at most 1.")
        for name in ("epsilon", "weight_decay", "sharpness"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise VitportError(f"optimizer.{name}={getattr(self, name)} is negative or no number: give 0 or more.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise VitportError(f"optimizer.clip_norm={self.clip_norm} lets nothing through: give one above 0, or none.")


@dataclass(frozen=True)
class Loss:
    """What is minimised."""

    name: LossName = "softmax"
    """Cross entropy over classes, or the sum of one binary cross entropy a class (Beyer et al. 2022)."""
    binary: bool = False
    """Of ``sigmoid``: whatever class has a share of a mixed picture counts as wholly there (Wightman et al. 2021)."""
    smoothing: float = 0.0
    """Share of each target that is spread evenly over the classes (Szegedy et al. 2016)."""
    mixup: float = 0.0
    """Parameter of the Beta distribution of mixup (Zhang et al. 2018); 0 means none."""
    cutmix: float = 0.0
    """The same of CutMix (Yun et al. 2019). Where both are given, each batch takes one of them by a fair coin."""
    distillation: Literal["none", "hard", "soft"] = "none"
    """Onto the distillation token where the model has one (Touvron et al. 2021, section 4), else onto the head."""
    temperature: float = 1.0
    """Of soft distillation: logits are divided by it."""
    distillation_weight: float = 0.5
    """Share of the teacher's part in the loss."""

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed at all."""
        return bool(self.mixup or self.cutmix)

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise VitportError(f"loss.{name}={getattr(self, name)} is no parameter of a Beta: give 0 or more.")
        if self.binary and (self.name != "sigmoid" or self.smoothing):
            raise VitportError(
                f"loss.binary makes every class with a share whole: it needs name='sigmoid' and no smoothing, not "
                f"{self.name!r} and {self.smoothing}."
            )
        if not self.temperature > 0:
            raise VitportError(f"loss.temperature={self.temperature} is none: give a number above 0.")
        for name in ("smoothing", "distillation_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise VitportError(f"loss.{name}={getattr(self, name)} is no share: give a number from 0 to 1.")


@dataclass(frozen=True)
class Recipe:
    """A whole recipe."""

    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    loss: Loss = field(default_factory=Loss)
    accumulation: int = 1
    """Parts that a batch is cut into; their gradients are averaged, and one step is taken."""
    ema: float = 0.0
    """Decay of the exponential moving average of the parameters; 0 keeps none."""

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise VitportError(f"accumulation={self.accumulation} cuts a batch into no parts: give 1 or more.")
        if not 0 <= self.ema < 1:
            raise VitportError(f"ema={self.ema} is no decay: give a number from 0 up to, not including, 1.")
