"""Chips by JAX's names for them."""

from __future__ import annotations

from vit_jax.training.devices.chips import peak_flops


def test_the_longest_name_that_fits_wins() -> None:
    assert peak_flops("TPU v5 lite") == 197e12
    assert peak_flops("TPU v5p") == 459e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("cpu") is None
