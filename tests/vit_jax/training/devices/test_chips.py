"""Chips by JAX's names for them."""

from __future__ import annotations

from vit_jax.training.devices.chips import compiler_options, peak_flops


def test_the_longest_name_that_fits_wins() -> None:
    assert peak_flops("TPU v5 lite") == 197e12
    assert peak_flops("TPU v5p") == 459e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("cpu") is None


def test_flags_are_those_of_the_chip_but_what_the_user_gave(monkeypatch) -> None:
    """That the compiler heeds them: tests/vit_jax/training/ahead/test_small_programs.py, on v6e."""
    gathers, fused = "xla_enable_async_all_gather", "xla_tpu_enable_async_collective_fusion_fuse_all_gather"
    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert compiler_options("TPU v6 lite") == {gathers: True, fused: True}
    assert compiler_options("NVIDIA A100-SXM4-80GB") == {"xla_gpu_enable_latency_hiding_scheduler": True}
    assert [compiler_options(kind) for kind in ("TPU v5 lite", "TPU v5", "NVIDIA H100 80GB HBM3", "cpu")] == [{}] * 4
    monkeypatch.setenv("LIBTPU_INIT_ARGS", f"--xla_some_flag=1 --{gathers}=false")
    assert compiler_options("TPU v6 lite") == {fused: True}
    monkeypatch.setenv("XLA_FLAGS", f"--{fused}")
    assert compiler_options("TPU v6 lite") == {}
