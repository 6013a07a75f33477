"""A suspected cause as a model that can be replayed, and the causes that any family can have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from vit_parity.bound import belongs
from vit_parity.points import path_in_block
from vit_parity.replay import ReplayedModel
from vit_spec import Kind, Preprocessing, parameters
from vit_spec.preprocessing import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from conversion import Checkpoint

Scope = Literal["stage", "segments", "model"]
"""One stage, every block, or the whole model."""
EPSILONS = (1e-12, 1e-6, 1e-5, 1e-3)
ACTIVATION_NAMES = {
    "gelu": "erf GELU",
    "gelu_tanh": "tanh GELU",
    "quick_gelu": "Quick GELU",
    "silu": "SiLU",
    "relu": "ReLU",
}

NORMALISATIONS = {
    "ImageNet's mean and standard deviation": (IMAGENET_MEAN, IMAGENET_STD),
    "mean and standard deviation 0.5": (HALF, HALF),
    "CLIP's mean and standard deviation": (CLIP_MEAN, CLIP_STD),
    "pixels from 0 to 1 without normalisation": ((0.0,) * 3, (1.0,) * 3),
    "pixels from 0 to 255 without normalisation": ((0.0,) * 3, (1 / 255,) * 3),
}


@dataclass(frozen=True)
class Hypothesis:
    """A cause, in words that follow "B", and the model as it would then be."""

    cause: str
    model: ReplayedModel
    scope: Scope = "stage"
    """Where else it would show."""


@dataclass(frozen=True)
class Origin:
    """What the weights and the run came with, for causes that the correct model alone does not show."""

    preprocessing: Preprocessing | None = None
    table: Checkpoint | None = None
    """The checkpoint before its position table was resized to the images."""
    own: Mapping[str, np.ndarray] | None = None
    """The weights that the run itself had, by canonical names, where they are known."""
    activations: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What the run computed in the stage, and the tokens before it."""


def images(s: ReplayedModel, origin: Origin) -> Iterator[Hypothesis]:
    """Wrong channels, normalisation or axes of the images, and wrong axes of the patch kernel."""
    if s.config.in_channels == 3:
        yield Hypothesis("reads the colours as BGR", replace(s, images=s.images[..., ::-1]))
        given = origin.preprocessing
        pixels = None if given is None else s.images * np.array(given.std) + np.array(given.mean)
        for name, (mean, std) in NORMALISATIONS.items():
            if pixels is not None and given is not None and (given.mean, given.std) != (mean, std):
                yield Hypothesis(f"is given {name}", replace(s, images=(pixels - np.array(mean)) / np.array(std)))
    if s.config.image_size[0] == s.config.image_size[1]:
        yield Hypothesis("swaps rows and columns of the image", replace(s, images=s.images.swapaxes(1, 2)))
    name = next(it.name for it in parameters(s.config) if it.kind is Kind.CONV)
    yield Hypothesis("swaps height and width of the patch kernel", s.with_param(name, s.params[name].swapaxes(2, 3)))


def norms(s: ReplayedModel, but: Collection[str] = ()) -> Iterator[Hypothesis]:
    """Another epsilon, another kind of norm, or a norm or layer scale left out, except the layers ``but``."""
    c = s.config
    for epsilon in EPSILONS:
        if epsilon != c.norm_eps:
            yield Hypothesis(f"uses epsilon {epsilon:.0e}", replace(s, config=c.replace(norm_eps=epsilon)))
    if c.norm == "layernorm":
        changed = c.replace(norm="rmsnorm", norm_bias=False)
        yield Hypothesis("norms without subtracting the mean", replace(s, config=changed))
    else:
        yield Hypothesis("subtracts the mean in its norms", replace(s, config=c.replace(norm="layernorm")))
    words = {Kind.NORM: "norm", Kind.SCALE: "layer scale"}
    layers = {path_in_block(it.name).rpartition(".")[0]: words[it.kind] for it in parameters(c) if it.kind in words}
    for layer in sorted(layers.keys() - but):
        yield Hypothesis(f"leaves out the {layers[layer]} {layer}", replace(s, skipped=s.skipped | {layer}))


def weights(s: ReplayedModel, stage: str) -> Iterator[Hypothesis]:
    """Faults of a conversion, in the same layer of every block."""
    for name in s.params:
        if not belongs(name, stage, s.config):
            continue
        end = path_in_block(name)
        if name.endswith("bias"):
            yield Hypothesis(f"drops {end}", _each(s, end, None))
        elif s.params[name].ndim == 2:
            yield Hypothesis(f"reads {end} as if it were transposed already", _each(s, end, "reshaped"))
            if s.params[name].shape[0] % s.params[name].shape[1] == 0:
                yield Hypothesis(f"has {end} transposed", _each(s, end, "transposed"))


def _each(s: ReplayedModel, end: str, fault: Literal["reshaped", "transposed"] | None) -> ReplayedModel:
    """The fault in the parameter with that path (:func:`vit_parity.points.path_in_block`), in every block."""

    def change(name: str, x: np.ndarray) -> np.ndarray:
        if path_in_block(name) != end:
            return x
        if fault == "reshaped":  # (in, out) in memory, taken for (out, in)
            return np.ascontiguousarray(x.T).reshape(x.shape)
        width = x.shape[1]
        return np.concatenate([part.T for part in x.reshape(-1, width, width)])  # one square after the other

    return s.without(lambda name: path_in_block(name) == end) if fault is None else s.with_params(change)
