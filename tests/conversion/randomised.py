"""Models of transformers with random parameters, none of them near its neutral value."""

from __future__ import annotations

from typing import Any

import torch


def randomised(cls: type, config: Any) -> Any:
    """A float64 model whose norms, biases, scales and tokens are as far from their initial values as its matrices."""
    torch.manual_seed(1)
    model = cls(config).double().eval()
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if ("norm" in name and name.endswith("weight")) or "lambda" in name:
            parameter.data = 1 + 0.3 * noise
        else:
            parameter.data = noise / parameter[0].numel() ** 0.5 if parameter.ndim in (2, 4) else 0.5 * noise
    return model
