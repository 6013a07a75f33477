"""FLOPs. Oracle: torch's own counter over the products that a model really makes, on no device at all.

That transformers' models count alike is tested for every name in test_registry.py.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.small_configs import COMBINATIONS, CONFIGS
from vit_spec import ViTConfig, forward_flops
from vit_torch import VisionTransformer


@pytest.mark.parametrize("config", [*CONFIGS.values(), *COMBINATIONS.values()], ids=[*CONFIGS, *COMBINATIONS])
def test_flops_of_every_option_are_those_of_its_forward_pass(config: ViTConfig) -> None:
    with torch.device("meta"):
        model = VisionTransformer(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, config.in_channels, *config.image_size, device="meta"))
    assert forward_flops(config) == counter.get_total_flops()
