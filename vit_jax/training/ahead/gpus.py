"""NVIDIA GPUs as XLA's compiler is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vit_jax.training.devices.chips import A100, B200, H100, Chip


@dataclass(frozen=True)
class Card:
    """Facts of a card that the compiler's decisions depend on; from openxla/xla's ``target_config/specs``."""

    chip: Chip
    name: str
    capability: int
    """Major number of its compute capability."""
    cores: int
    lanes: int
    """Floating point units of a core."""
    gigahertz: float
    memory: int
    """Bytes."""
    bandwidth: int
    """Of its memory, bytes per second."""
    cache: int
    """Bytes of its second level."""
    shared: int
    """Bytes of memory that the threads of a core share."""
    block: int
    """Bytes of it that one block of threads may ask for."""

    @property
    def target(self) -> str:
        """As a text proto, ``stream_executor.GpuTargetConfigProto``."""
        return f"""gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_core: {self.shared} shared_memory_per_block_optin: {self.block}
  core_count: {self.cores} fpus_per_core: {self.lanes} clock_rate_ghz: {self.gigahertz}
  device_memory_size: {self.memory} memory_bandwidth: {self.bandwidth} l2_cache_size: {self.cache}
  cuda_compute_capability {{ major: {self.capability} }}
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 8 patch: 0 }}
device_description_str: "{self.name}"
"""


CARDS = {
    "a100": Card(
        A100, "NVIDIA A100-SXM4-80GB", capability=8, cores=108, lanes=64, gigahertz=1.41, memory=85100068864,
        bandwidth=2039040000000, cache=41943040, shared=167936, block=166912,
    ),
    "h100": Card(
        H100, "NVIDIA H100 80GB HBM3", capability=9, cores=132, lanes=128, gigahertz=1.98, memory=84929347584,
        bandwidth=3352320000000, cache=52428800, shared=233472, block=232448,
    ),
    "b200": Card(
        B200, "NVIDIA B200", capability=10, cores=148, lanes=128, gigahertz=1.965, memory=191514411008,
        bandwidth=7672320000000, cache=132644864, shared=233472, block=232448,
    ),
}  # fmt: skip
OPTIONS: dict[str, Any] = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
"""Both would try kernels on a device."""
