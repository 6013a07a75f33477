"""The models of all families."""

from __future__ import annotations

from typing import Any

from vit_spec import Config, needed_module
from vit_torch.model import VisionModel


def make_model(config: Config) -> VisionModel[Any]:
    """A new model of the config's family, whose folder names its class ``MODEL``."""
    return needed_module("vit_torch", config, "have no model in PyTorch yet").MODEL(config)
