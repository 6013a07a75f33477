from __future__ import annotations

import math

import torch

from vit_torch.layers.initialization import make_linear, make_patch_conv, make_tokens


def assert_normal(values: torch.Tensor, std: float):
    """Oracle: the normal distribution; 4 standard errors of mean, deviation and kurtosis."""
    x = values.detach().double().flatten() / std
    n = x.numel()
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs(x.std() - 1) < 4 / math.sqrt(2 * n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)


def test_linear_starts_normal_with_deviation_0_01_and_zero_bias():
    torch.manual_seed(0)
    layer = make_linear(200, 300)
    assert_normal(layer.weight, 0.01)
    assert not layer.bias.any()
    assert make_linear(2, 3, bias=False).bias is None


def test_patch_convolution_starts_kaiming_normal_over_the_fan_out():
    """Oracle: ``torch.nn.init.kaiming_normal_(mode="fan_out")``, whose deviation is sqrt(2 / (128 * 8 * 8))."""
    torch.manual_seed(0)
    layer = make_patch_conv(3, 128, 8)
    assert_normal(layer.weight, math.sqrt(2 / (128 * 64)))
    oracle = torch.nn.init.kaiming_normal_(torch.empty_like(layer.weight), mode="fan_out", nonlinearity="relu")
    assert abs(layer.weight.std() / oracle.std() - 1) < 0.03
    assert layer.bias is not None
    assert not layer.bias.any()


def test_tokens_start_normal_with_deviation_0_02():
    torch.manual_seed(0)
    assert_normal(make_tokens(200, 300), 0.02)
