"""Models from packages, or as a user writes them, each with a port in Flax NNX, its layers and likely mistakes."""

from __future__ import annotations

from importlib import import_module

from tests.vit_parity.porting.pairs.pair import PortedModel

NAMES = ("gpt2", "llama", "vit", "convnext", "resnet", "dit", "unet")


def pair(name: str) -> PortedModel:
    """One of :data:`NAMES`."""
    return import_module(f"tests.vit_parity.porting.pairs.{name}").PAIR
