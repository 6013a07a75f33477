"""Faults planted in what PyTorch runs: its config, weights, images, modules or functions, never in the replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch

import vit_torch
import vit_torch.layers.attention
from conversion import Checkpoint
from tests.random_weights import random_params
from tests.small_configs import BASE
from tests.vit_parity.runs import random_batch, run_torch
from vit_parity import Capture, capture_torch
from vit_spec import Preprocessing

CONFIG = BASE.replace(image_size=(12, 12), depth=2, norm_eps=1e-6, pre_norm=True, mlp_hidden_dim=48)
PARAMS = random_params(CONFIG, seed=3, dtype=np.float32)
PREPROCESSING = Preprocessing(size=CONFIG.image_size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
WEIGHTS = Checkpoint.of(CONFIG, PARAMS)
IMAGES = random_batch(CONFIG)


def options(**changes: Any) -> Callable[[], Capture]:
    """Another option of the model."""
    return lambda: run_torch(Checkpoint.of(CONFIG.replace(**changes), PARAMS), IMAGES, title="B")


def parameters(change: Callable[[str, np.ndarray], np.ndarray]) -> Callable[[], Capture]:
    """Other weights."""
    changed = {name: np.ascontiguousarray(change(name, array)) for name, array in PARAMS.items()}
    return lambda: run_torch(Checkpoint.of(CONFIG, changed), IMAGES, title="B")


def ending(end: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], Capture]:
    return parameters(lambda name, array: change(array) if name.endswith(end) else array)


def seen(images: np.ndarray) -> Callable[[], Capture]:
    """Other images, although it says that it saw these."""
    return lambda: replace(run_torch(WEIGHTS, np.ascontiguousarray(images, np.float32), title="B"), images=IMAGES)


def without(*names: str) -> Callable[[], Capture]:
    """Modules replaced by the identity."""

    def run() -> Capture:
        model = vit_torch.create_model(weights=WEIGHTS).eval()
        for name in names:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, torch.nn.Identity())
        return capture_torch(model, IMAGES, "B")

    return run


def split(turn: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], Capture]:
    """The joint layer's output is turned before attention takes it apart."""

    def run() -> Capture:
        model = vit_torch.create_model(weights=WEIGHTS).eval()
        for block in model.blocks:
            block.attn.qkv.register_forward_hook(lambda _module, _inputs, output: turn(output))
        found = capture_torch(model, IMAGES, "B")
        known = {name: array for name, array in found.activations.items() if not name.endswith("attn.qkv")}
        return replace(found, activations=known)

    return run


Rounding = Callable[[torch.Tensor], torch.Tensor]


def to_16_bits(dtype: torch.dtype) -> Rounding:
    return lambda x: x.to(dtype).float()


def to_tf32(x: torch.Tensor) -> torch.Tensor:
    """Ten bits of mantissa, to the nearest, halves up (as NVIDIA's conversion ``cvt.rna`` does)."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x


def linear_layers(read: Rounding, stored: Rounding = as_it_is, *, bias: bool = False) -> Callable[[], Capture]:
    """Linear layers round what they multiply, sum in float32 as accelerators do, and round what they give."""

    def run() -> Capture:
        model = vit_torch.create_model(weights=WEIGHTS).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data = read(module.weight.data)
                module.bias.data = read(module.bias.data) if bias else module.bias.data
                module.register_forward_pre_hook(lambda _, inputs: (read(inputs[0]),))
                module.register_forward_hook(lambda _, __, output: stored(output))
        return capture_torch(model, IMAGES, "B")

    return run


def attention(read: Rounding, stored: Rounding = as_it_is) -> Callable[[], Capture]:
    """The same of the two products in attention."""

    def attend(q: Any, k: Any, v: Any, scale: float, drop: Any, bias: Any = None) -> torch.Tensor:
        assert bias is None
        weights = drop(stored(read(q * scale) @ read(k).transpose(-2, -1)).softmax(dim=-1))
        return stored(read(weights) @ read(v)).transpose(1, 2).flatten(2)

    def run() -> Capture:
        with mock.patch.object(vit_torch.layers.attention, "attend", attend):
            return run_torch(WEIGHTS, IMAGES, title="B")

    return run


def reordered(order: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.concatenate([np.split(x, 3)["qkv".index(part)] for part in order])


def interleaved(x: np.ndarray) -> np.ndarray:
    return x.reshape(3, 3, 8, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
