"""The models of all families."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vit_spec import Config
from vit_torch.model import VisionModel


def make_model(config: Config) -> VisionModel[Any]:
    """A new model of the config's family, whose folder names its class ``MODEL``."""
    family = import_module(f"vit_torch.{config.family}")
    return family.MODEL(config)
