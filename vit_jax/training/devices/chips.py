"""Peak performance of accelerators, from their makers' data sheets, and what their compiler is told."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One accelerator and how it connects to others: fast links within a domain, a network between domains.

    Bandwidths are in bytes per second; for links and network, what one chip sends while it receives the same.
    """

    name: str
    kind: str
    """Prefix of JAX's ``device_kind``."""
    flops: float
    """Dense bfloat16 operations per second."""
    memory: float
    """Bytes of HBM that a program can have; of TPUs, as libtpu's compiler says."""
    memory_bandwidth: float
    domain: int
    """Chips that the fast links connect."""
    ring: int
    """Chips along one axis of the fast links."""
    ring_bandwidth: float
    """Along one axis of the fast links, in both directions of the ring together."""
    rings: int
    """Axes of the fast links; a collective uses all that its members span at once."""
    network_bandwidth: float
    cudnn: bool = False
    """Whether it has cuDNN's attention."""
    tile: tuple[int, int] = (1, 1)
    """Rows and columns of the tiles in which its compiler holds arrays."""
    closes: int = 0
    """On a torus: an axis of a slice whose length is a multiple of it is closed to a ring; others are lines."""
    sums_beside: bool = False
    """Whether its compiler lets kernels go on while gradients are summed, by all-reduce or reduce-scatter."""
    flags: tuple[str, ...] = ()
    """Of XLA's compiler, off by default, that training steps are compiled with."""


V4 = Chip(
    "TPU v4", "TPU v4", flops=275e12, memory=31.25 * 2**30, memory_bandwidth=1228e9,
    domain=4096, ring=16, ring_bandwidth=100e9, rings=3, network_bandwidth=3.125e9, closes=4, tile=(8, 128),
)  # fmt: skip
"""https://cloud.google.com/tpu/docs/v4: a torus of three axes, in cubes of 4 x 4 x 4 that are closed to rings; 2,400
Gb/s of links per chip. Its network is taken to be v5e's: no figure by chip is published."""
V5P = Chip(
    "TPU v5p", "TPU v5", flops=459e12, memory=95.74 * 2**30, memory_bandwidth=2765e9,
    domain=8960, ring=16, ring_bandwidth=200e9, rings=3, network_bandwidth=6.25e9, closes=4, tile=(8, 128),
)  # fmt: skip
"""https://cloud.google.com/tpu/docs/v5p: 1,200 GB/s of links per chip, both directions counted, on a torus of three
axes, in cubes of 4 x 4 x 4 that are closed to rings; 50 Gb/s of network per chip."""
V5E = Chip(
    "TPU v5e", "TPU v5 lite", flops=197e12, memory=15.75 * 2**30, memory_bandwidth=819e9,
    domain=256, ring=16, ring_bandwidth=100e9, rings=2, network_bandwidth=3.125e9, tile=(8, 128), closes=16,
)  # fmt: skip
"""https://cloud.google.com/tpu/docs/v5e: 400 GB/s of links per chip, both directions counted, on four ports of a torus
of 16 x 16; 6.4 Tb/s of network per pod of 256. By direction and axis: Austin et al. 2025, How to Scale Your Model, part
2 (https://jax-ml.github.io/scaling-book/tpus)."""
V6E = Chip(
    "TPU v6e", "TPU v6 lite", flops=918e12, memory=31.25 * 2**30, memory_bandwidth=1638e9,
    domain=256, ring=16, ring_bandwidth=200e9, rings=2, network_bandwidth=12.5e9, tile=(8, 128), closes=16,
    flags=("xla_enable_async_all_gather", "xla_tpu_enable_async_collective_fusion_fuse_all_gather"),
)  # fmt: skip
"""https://cloud.google.com/tpu/docs/v6e: 800 GB/s of links per chip, both directions counted, on four ports of a torus
of 16 x 16; 25.6 Tb/s of network per pod of 256. Both flags have weights gathered beside kernels, as for v5e without."""
H100 = Chip(
    "H100 SXM", "NVIDIA H100", flops=989e12, memory=80e9, memory_bandwidth=3.35e12,
    domain=8, ring=8, ring_bandwidth=450e9, rings=1, network_bandwidth=50e9, cudnn=True, sums_beside=True,
)  # fmt: skip
"""https://www.nvidia.com/en-us/data-center/h100: half of the operations that it states with sparsity; 900 GB/s of
NVLink, both directions counted. One 400 Gb/s port of InfiniBand per GPU as in a DGX H100: How to Scale Your Model, part
12 (https://jax-ml.github.io/scaling-book/gpus)."""
A100 = Chip(
    "A100 SXM", "NVIDIA A100", flops=312e12, memory=80e9, memory_bandwidth=2.039e12,
    domain=8, ring=8, ring_bandwidth=300e9, rings=1, network_bandwidth=25e9, cudnn=True, sums_beside=True,
    flags=("xla_gpu_enable_latency_hiding_scheduler",),
)  # fmt: skip
"""https://www.nvidia.com/en-us/data-center/a100: 600 GB/s of NVLink, both directions counted. One 200 Gb/s port of
InfiniBand per GPU as in a DGX A100. The flag has collectives run beside kernels, as for the others without."""
B200 = Chip(
    "B200", "NVIDIA B200", flops=2250e12, memory=180e9, memory_bandwidth=7.67e12,
    domain=8, ring=8, ring_bandwidth=900e9, rings=1, network_bandwidth=50e9, cudnn=True, sums_beside=True,
)  # fmt: skip
"""https://www.nvidia.com/en-us/data-center/dgx-b200: an eighth of its figures; 1.8 TB/s of NVLink per GPU, both
directions counted; one 400 Gb/s port per GPU."""
CHIPS = {"v4": V4, "v5e": V5E, "v5p": V5P, "v6e": V6E, "a100": A100, "h100": H100, "b200": B200}

PEAK_FLOPS = {chip.kind: chip.flops for chip in CHIPS.values()} | {
    "NVIDIA H200": 989e12,
}
"""Dense bfloat16 operations per second of one device, by the prefix of JAX's ``device_kind``. The last one:
NVIDIA's data sheet of the H200."""


def peak_flops(kind: str) -> float | None:
    """Peak of one device, by the longest matching prefix; ``None`` where it is unknown."""
    name = _longest(kind, PEAK_FLOPS)
    return None if name is None else PEAK_FLOPS[name]


def compiler_options(kind: str) -> dict[str, bool]:
    """What a training step is compiled with for such devices, here or not: ``compiler_options`` of ``jax.jit``.

    A flag that ``LIBTPU_INIT_ARGS`` or ``XLA_FLAGS`` names is left out, since options would win over the user's.

    Args:
        kind: JAX's ``device_kind``.
    """
    name = _longest(kind, [chip.kind for chip in CHIPS.values()])
    given = {
        flag.lstrip("-").partition("=")[0]
        for variable in ("LIBTPU_INIT_ARGS", "XLA_FLAGS")
        for flag in os.environ.get(variable, "").split()
    }
    flags = next((chip.flags for chip in CHIPS.values() if chip.kind == name), ())
    return {flag: True for flag in flags if flag not in given}


def _longest(kind: str, names: Iterable[str]) -> str | None:
    return max((name for name in names if kind.startswith(name)), key=len, default=None)
