from __future__ import annotations

import torch

from vit_torch import LayerScale


def test_layer_scale_multiplies_each_channel():
    layer = LayerScale(3, 0.5)
    x = torch.arange(12.0).reshape(2, 2, 3)
    assert torch.equal(layer(x), 0.5 * x)
    layer.gamma.data = torch.tensor([1.0, 10.0, 100.0])
    assert layer(torch.ones(1, 3)).tolist() == [[1.0, 10.0, 100.0]]
