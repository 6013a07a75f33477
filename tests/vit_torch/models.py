"""PyTorch models holding given weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tests.random_weights import random_array
from vit_spec import Config
from vit_torch.families import make_model
from vit_torch.model import VisionModel


def torch_model(config: Config, params: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float64) -> VisionModel:
    """A model in training mode, its weights cast to ``dtype``; every parameter is given, none is left over."""
    model = make_model(config).to(dtype)
    model.load_state_dict({name: torch.tensor(array) for name, array in params.items()}, strict=True)
    return model


def randomize(module: torch.nn.Module, at: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Makes a layer float64 and gives it random weights; returns them under their names in a model's place ``at``."""
    module.double()
    rng = np.random.default_rng(seed)
    params: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            params[f"{at}.{name}"] = random_array(f"{at}.{name}", tuple(parameter.shape), rng)
            parameter.copy_(torch.tensor(params[f"{at}.{name}"]))
    return params
